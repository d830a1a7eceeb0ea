#include "bitplan/ptq/apply.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <map>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/quantizers/quantizer.h"

namespace bitplan {
namespace {

std::string ShapeText(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

LevelChoice ChoiceOf(std::size_t layer, const std::vector<LevelChoice>& choices, const QuantizerOptions& options) {
  return choices.empty() ? LevelChoice{options.grid, options.range} : choices[layer];
}

// The layers of the plan in the order of the network's.
void FitLayers(Plan& plan, const Network& network, bool with_macs) {
  std::string differences;
  const auto note = [&](const std::string& text) { differences += (differences.empty() ? "" : "; ") + text; };
  std::map<std::string, PlanLayer> planned;
  for (PlanLayer& layer : plan.layers) {
    const std::string name = layer.name;
    if (!planned.try_emplace(name, std::move(layer)).second) note("the plan gives layer " + name + " twice");
  }
  plan.layers.clear();
  for (const Layer& layer : network.layers) {
    const auto found = planned.find(layer.name);
    if (found == planned.end()) {
      note("the plan has no layer " + layer.name);
      continue;
    }
    const PlanLayer& entry = found->second;
    if (layer.shape != entry.shape) {
      note(entry.name + " is " + ShapeText(entry.shape) + " in the plan and " + ShapeText(layer.shape) +
           " in the model");
    } else if (layer.kind != entry.kind || (with_macs && layer.macs != entry.macs)) {
      note(entry.name + " is " + entry.kind + " with " + std::to_string(entry.macs) + " macs in the plan and " +
           layer.kind + " with " + std::to_string(layer.macs) + " in the model");
    }
    plan.layers.push_back(std::move(found->second));
    planned.erase(found);
  }
  for (const auto& [name, layer] : planned) note("the model has no layer " + name);
  if (!differences.empty()) throw Error(ErrorKind::kData, "the plan is for another model: " + differences);
}

// The first digits of two hashes, or all of them where these are the same.
std::pair<std::string, std::string> Shortened(const std::string& a, const std::string& b) {
  constexpr std::size_t kDigits = 12;
  const bool differ = a.compare(0, kDigits, b, 0, kDigits) != 0;
  return {differ ? a.substr(0, kDigits) : a, differ ? b.substr(0, kDigits) : b};
}

}  // namespace

Plan FitPlan(Plan plan, const Network& network, const std::string& model_hash) {
  FitLayers(plan, network, true);
  if (plan.model.sha256 != model_hash) {
    const auto [planned, found] = Shortened(plan.model.sha256, model_hash);
    throw Error(ErrorKind::kData, "the plan is for other weights or another forward of the same layers (plan: sha256 " +
                                      planned + ", model: " + found +
                                      "); take its widths with `bitplan verify --transfer`, or make a plan for this "
                                      "model with `bitplan run`");
  }
  return plan;
}

Plan TransferPlan(Plan plan, const Network& network, const std::string& model_hash) {
  FitLayers(plan, network, false);
  if (plan.model.sha256 == model_hash) return plan;
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    plan.layers[l].macs = network.layers[l].macs;
    plan.layers[l].confidence = -1.0;
  }
  if (!plan.transferred) plan.transferred = PlanSource{plan.model.name, plan.model.sha256};
  if (plan.transferred->sha256 == model_hash) plan.transferred.reset();  // back to where they came from
  plan.model = {network.name, model_hash, network.quantizable_weights()};
  plan.achieved.optimality_gap = -1.0;
  plan.guard.reset();
  plan.drop.reset();
  plan.verified.reset();
  return plan;
}

bool AreKnown(const LayerFits& known, const std::vector<int>& bits, const std::vector<LevelChoice>& choices,
              const QuantizerOptions& options) {
  for (std::size_t l = 0; l < bits.size(); ++l) {
    if (bits[l] <= 8 && known.Find(l, bits[l], ChoiceOf(l, choices, options)) == nullptr) return false;
  }
  return true;
}

void AppliedPlan::Put(const Network& network, std::size_t layer, QuantizedTensor weight) {
  GetTensor(module, network.layers[layer].parameter).copy_(weight.Values());
  weights[layer] = std::move(weight);
  transferred.reset();
}

AppliedPlan ApplyBits(const Network& network, const std::vector<int>& bits, const std::vector<LevelChoice>& choices,
                      const QuantizerOptions& options, const std::vector<QuantizerEvidence>& evidence,
                      const LayerFits* known) {
  const auto one_each = [&](std::size_t size) { return size == 0 || size == network.layers.size(); };
  if (bits.size() != network.layers.size() || !one_each(choices.size()) || !one_each(evidence.size())) {
    throw Error(ErrorKind::kInternal, "apply: one bit width and choice per layer expected");
  }
  const torch::NoGradGuard no_grad;
  AppliedPlan applied{CloneModule(network.module), {}, {}, std::vector<QuantizedTensor>(bits.size())};
  for (std::size_t l = 0; l < bits.size(); ++l) {
    const Layer& layer = network.layers[l];
    if (bits[l] > 8) {
      applied.choices.push_back({"zero", "mse"});
      applied.fits.emplace_back();
      continue;
    }
    const torch::Tensor slot = GetTensor(applied.module, layer.parameter);
    const LevelChoice choice = ChoiceOf(l, choices, options);
    const QuantizedWeight* const found = known == nullptr ? nullptr : known->Find(l, bits[l], choice);
    QuantizerOptions with = options;
    if (found != nullptr) with.range = "mse";  // rounding with scales that are found asks for no evidence
    const WeightRows rows(slot, layer.output_dim, with,
                          found != nullptr || evidence.empty() ? QuantizerEvidence() : evidence[l]);
    const QuantizedWeight fit = found != nullptr ? *found : rows.Fit(bits[l], choice);
    applied.Put(network, l, rows.Quantized(fit));
    applied.choices.push_back({fit.grid, fit.range});
    applied.fits.push_back(fit);
  }
  return applied;
}

}  // namespace bitplan
