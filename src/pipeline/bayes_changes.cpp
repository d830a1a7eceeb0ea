#include "pipeline/bayes_changes.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/bayes/predict.h"
#include "bitplan/core/statistics.h"

namespace bitplan::pipeline {
namespace {

constexpr int kResamples = 2000;

BayesDrift DriftOver(const std::vector<RelativeChange>& changes) {
  const auto n = static_cast<double>(changes.size());
  BayesDrift drift;
  double variance = 0.0, spread = 0.0;
  std::vector<double> values;
  for (const RelativeChange& change : changes) {
    const double part = change.standard_error * change.standard_error / (n * n);
    drift.change += change.value / n;
    variance += part;
    if (part > 0.0) spread += part * part / change.degrees;
    if (std::abs(change.value) > std::abs(drift.worst)) drift.worst = change.value;
    values.push_back(change.value);
  }
  // Degrees of freedom of a sum of variances that need not be equal, after Satterthwaite (1946).
  const double half = spread > 0.0 ? StudentQuantile975(variance * variance / spread) * std::sqrt(variance) : 0.0;
  drift.ci_low = drift.change - half;
  drift.ci_high = drift.change + half;
  drift.seeds = OverSeeds(std::move(values));
  return drift;
}

// Shares of right answers of two rows on the images of a role. Where all seeds are measured on the same images they are
// means over the seeds; otherwise every seed's images stand one after the other.
class Answers {
 public:
  explicit Answers(bool same_images) : same_images_(same_images) {}

  // Of one seed; `before`, `after`, `labels`: float32 [images].
  void Add(const torch::Tensor& before, const torch::Tensor& after, const torch::Tensor& labels) {
    const double drop =
        ((before - after) * labels).sum(torch::kFloat64).item<double>() / labels.sum(torch::kFloat64).item<double>();
    of_seeds_.push_back(drop);
    if (same_images_ && !before_.empty()) {
      before_.front() = before_.front() + before;
      after_.front() = after_.front() + after;
    } else {
      before_.push_back(before);
      after_.push_back(after);
      labels_.push_back(labels);
    }
  }
  // Both roles of a seed stand behind each other in `Drop`.
  void Append(const Answers& other) {
    const auto add = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
    add(before_, other.before_);
    add(after_, other.after_);
    add(labels_, other.labels_);
  }
  void SetOfSeeds(std::vector<double> drops) { of_seeds_ = std::move(drops); }
  [[nodiscard]] double LabelsOf(std::size_t seed) const {
    return labels_[same_images_ ? 0 : seed].sum(torch::kFloat64).item<double>();
  }
  [[nodiscard]] const std::vector<double>& of_seeds() const { return of_seeds_; }

  [[nodiscard]] BayesDrop Drop(std::uint64_t seed) const {
    std::vector<torch::Tensor> blocks;
    std::int64_t next = 0;
    for (const torch::Tensor& labels : labels_) {
      blocks.push_back(DrawBlocks(labels.numel(), next));
      next = blocks.back()[-1].item<std::int64_t>() + 1;
    }
    const double seeds = same_images_ ? static_cast<double>(of_seeds_.size()) : 1.0;
    const ClusteredDrop d = CompareClustered(torch::cat(before_) / seeds, torch::cat(after_) / seeds,
                                             torch::cat(labels_), torch::cat(blocks), kResamples, seed);
    return {d.drop, d.ci_low, d.ci_high, OverSeeds(of_seeds_)};
  }

 private:
  bool same_images_;
  std::vector<torch::Tensor> before_, after_, labels_;
  std::vector<double> of_seeds_;
};

}  // namespace

BayesChanges ChangesOf(const BayesRow& reference, const BayesRow& row, const BayesSetup& setup,
                       const BayesFolder& folder) {
  const auto per_image = [&](std::uint64_t seed, const std::string& name) {
    return LoadPerImage(setup, folder.File(fmt::format("seed-{}/{}.pt", seed, name)));
  };
  std::map<std::string, Answers> answers;
  std::map<std::string, std::vector<RelativeChange>> aleatoric, epistemic;
  std::map<std::string, std::vector<double>> auroc;
  for (std::size_t s = 0; s < row.seeds.size(); ++s) {
    const BayesSeedResult &was = reference.seeds[s], &is = row.seeds[s];
    const auto before = per_image(was.seed, reference.name), after = per_image(is.seed, row.name);
    for (const auto& [role, values] : before) {
      if (!IsUnknown(role)) {
        answers.try_emplace(role, setup.SameImages()).first->second.Add(values[0], after.at(role)[0], values[1]);
      }
      const BayesMeasurement &f = was.splits.at(role), &q = is.splits.at(role);
      aleatoric[role].push_back(CompareMeans(f.aleatoric, q.aleatoric, f.aleatoric_without, q.aleatoric_without));
      epistemic[role].push_back(CompareMeans(f.epistemic, q.epistemic, f.epistemic_without, q.epistemic_without));
    }
    for (const auto& [role, value] : was.auroc) auroc[role].push_back(is.auroc.at(role) - value);
  }
  BayesChanges changes;
  for (const auto& [role, of_seeds] : aleatoric) changes.aleatoric[role] = DriftOver(of_seeds);
  for (const auto& [role, of_seeds] : epistemic) changes.epistemic[role] = DriftOver(of_seeds);
  for (auto& [role, of_seeds] : auroc) changes.auroc[role] = OverSeeds(std::move(of_seeds));
  Answers all(setup.SameImages());
  std::vector<double> lost(row.seeds.size()), labels(row.seeds.size());
  for (const char* role : {kClean, kAmbiguous}) {
    const auto found = answers.find(role);
    if (found == answers.end()) continue;
    changes.drops[role] = found->second.Drop(setup.recipe.seed);
    all.Append(found->second);
    for (std::size_t s = 0; s < lost.size(); ++s) {
      const double count = found->second.LabelsOf(s);
      lost[s] += found->second.of_seeds()[s] * count;
      labels[s] += count;
    }
  }
  for (std::size_t s = 0; s < lost.size(); ++s) lost[s] /= labels[s];
  all.SetOfSeeds(std::move(lost));
  changes.drops["all"] = all.Drop(setup.recipe.seed);
  return changes;
}

}  // namespace bitplan::pipeline
