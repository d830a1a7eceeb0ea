#include "pipeline/bayes_caps.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <utility>

#include "bitplan/bayes/uncertainty.h"

namespace bitplan::pipeline {

std::vector<BayesCapCheck> CheckCaps(const BayesEvaluation& before, const BayesEvaluation& after,
                                     const torch::Tensor& several) {
  std::vector<BayesCapCheck> checks;
  for (const auto& [kind, chosen] :
       {std::pair<const char*, torch::Tensor>{"one label", several.logical_not()}, {"several labels", several}}) {
    BayesCapCheck check{.kind = kind, .images = chosen.sum().item<std::int64_t>()};
    if (check.images == 0) continue;
    const BoundedDrop drop = DropOf(before.correct, after.correct, before.labels, chosen);
    const BoundedChange aleatoric = ChangeOf(before.aleatoric_of, after.aleatoric_of, chosen);
    const BoundedChange epistemic = ChangeOf(before.epistemic_of, after.epistemic_of, chosen);
    check.accuracy_drop = {drop.value, drop.at_most};
    check.aleatoric_drift = {aleatoric.value, aleatoric.at_most};
    check.epistemic_drift = {epistemic.value, epistemic.at_most};
    checks.push_back(std::move(check));
  }
  return checks;
}

std::string BrokenCap(const std::vector<BayesCapCheck>& checks, const BayesPlanOptions& caps) {
  for (const BayesCapCheck& check : checks) {
    if (caps.accuracy_drop < 1.0 && !(check.accuracy_drop.at_most <= caps.accuracy_drop)) {
      return fmt::format("accuracy on images with {} drops by {:.4f}, perhaps by {:.4f} (cap {:g})", check.kind,
                         check.accuracy_drop.value, check.accuracy_drop.at_most, caps.accuracy_drop);
    }
    if (caps.drift >= 1.0) continue;
    using Drift = std::pair<const char*, const BayesCapCheck::Bounded&>;
    for (const auto& [what, drift] :
         {Drift{"aleatoric", check.aleatoric_drift}, {"epistemic", check.epistemic_drift}}) {
      if (drift.at_most <= caps.drift) continue;
      return fmt::format("{} uncertainty about images with {} changes by {:+.1f} %, perhaps by {:.1f} % (cap {:g} %)",
                         what, check.kind, 100.0 * drift.value, 100.0 * drift.at_most, 100.0 * caps.drift);
    }
  }
  return "";
}

}  // namespace bitplan::pipeline
