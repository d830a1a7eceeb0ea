// What a plan takes beside bits and bytes: the peak of activations, and latency by a table.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/constraints.h"
#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/latency.h"
#include "bitplan/io/recipe.h"
#include "bitplan/models/activation_timeline.h"
#include "pipeline/checks.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

constexpr int kWidestRounding = 16;

bool IsExcluded(const Layer& layer, const AllocateOptions& options) {
  return std::any_of(options.exclude.begin(), options.exclude.end(),
                     [&](const std::string& pattern) { return MatchesPattern(layer.name, pattern); });
}

// This width for all that planned layers read.
std::vector<int> ActivationsAt(const bitplan::Network& network, const AllocateOptions& options, int width) {
  std::vector<int> bits;
  for (const Layer& layer : network.layers) {
    bits.push_back(layer.rounds_input() && !IsExcluded(layer, options) ? width : kFloatBits);
  }
  return bits;
}

// The least widths of what layers read that the options allow.
std::vector<int> NarrowestActivations(const bitplan::Network& network, const AllocateOptions& options) {
  const auto& asked = options.activation_bits;
  return ActivationsAt(network, options, asked.empty() ? kFloatBits : *std::min_element(asked.begin(), asked.end()));
}

std::string TooManyLive(const bitplan::Network& network, const ActivationTimeline& timeline,
                        const std::vector<int>& bits, double limit) {
  const ActivationStep& step = PeakStep(timeline, bits);
  const std::vector<int> widths = WidthsOfTensors(timeline, bits);
  const std::int64_t bytes = LiveBytes(step, widths);
  std::string rounded;
  int narrowest = kFloatBits;
  std::int64_t float_bytes = bytes;
  for (const LiveTensor& live : step.rounded) {
    if (widths[live.tensor] > kWidestRounding) continue;
    float_bytes -= BytesAt(live.elements, widths[live.tensor]);
    narrowest = std::min(narrowest, widths[live.tensor]);
    rounded += (rounded.empty() ? "" : ", ") + network.layers[live.tensor].name;
  }
  if (!rounded.empty()) {
    rounded = fmt::format("what {} read{} at {}, ", rounded, rounded.find(',') == std::string::npos ? "s" : "",
                          Counted(narrowest, "bit"));
  }
  const bool in_float = std::all_of(bits.begin(), bits.end(), [](int width) { return width > kWidestRounding; });
  const char* const advice = in_float          ? "round activations with allocate.activation_bits or "
                             : rounded.empty() ? ""
                                               : "allow narrower widths in allocate.activation_bits or ";
  return fmt::format(
      "budget activation_bytes {:.0f} cannot be met: {} are live while {} runs ({}{} in float); {}raise the budget to "
      "{}",
      limit, Counted(bytes, "byte"), step.where, rounded, Grouped(float_bytes), advice, bytes);
}

}  // namespace

const ActivationTimeline& StageChain::Timeline() {
  if (!timeline_) timeline_ = FindActivationTimeline(Model());
  return *timeline_;
}

std::int64_t StageChain::PeakAt(int activation_bits) {
  return PeakActivationBytes(Timeline(), ActivationsAt(Model(), recipe_.allocate, activation_bits));
}

const std::vector<LatencyRow>& StageChain::LatencyRows() {
  if (latency_.empty() && !recipe_.allocate.latency.empty()) {
    const auto file = FindInFolders(recipe_.allocate.latency, data_folders_, "table of latencies");
    latency_ = LoadLatencyTable(file);
    latency_hash_ = Sha256Hex(ReadFile(file, "table of latencies"));
  }
  return latency_;
}

std::string StageChain::AllocateInput(const AllocateOptions& options) {
  Recipe recipe = recipe_;
  recipe.allocate = options;
  std::string input = DumpRecipeSection(recipe, "allocate");
  if (!options.latency.empty()) {
    (void)LatencyRows();
    input += latency_hash_;
  }
  return input;
}

void StageChain::PriceUnits(std::vector<Unit>& units, const bitplan::Network& network) {
  const auto& activation_bits = recipe_.allocate.activation_bits;
  const auto& rows = LatencyRows();
  for (std::size_t l = 0; l < units.size(); ++l) {
    const Layer& layer = network.layers.at(l);
    if (activation_bits.size() == 1 && layer.rounds_input()) units[l].activation_bits = activation_bits.front();
    units[l].latency = LatencyOf(rows, layer.name, layer.kind);
  }
}

void StageChain::CheckResources(const bitplan::Network& network) {
  const AllocateOptions& options = recipe_.allocate;
  if (const Limit* limit = options.budget.Find(ActivationMemory())) {
    const auto timeline = network_ ? Timeline() : FindActivationTimeline(network);
    const auto bits = NarrowestActivations(network, options);
    if (static_cast<double>(PeakActivationBytes(timeline, bits)) > limit->value) {
      throw Error(ErrorKind::kInfeasible, TooManyLive(network, timeline, bits, limit->value));
    }
  }
  if (options.latency.empty()) return;
  std::vector<Unit> units(network.layers.size());
  PriceUnits(units, network);
  for (std::size_t l = 0; l < units.size(); ++l) {
    units[l].name = network.layers[l].name;
    const bool excluded = IsExcluded(network.layers[l], options);
    std::vector<int> activations = options.activation_bits;
    if (activations.empty() || excluded || !network.layers[l].rounds_input()) activations = {kFloatBits};
    for (const int width : excluded ? std::vector<int>{kFloatBits} : Widths()) {
      for (const int activation : activations) {
        units[l].activation_bits = activation;
        (void)Cost(units[l], width, Latency());  // an error where no row covers it
      }
    }
  }
}

void StageChain::StateResources(Plan& plan) {
  plan.achieved.activation_bytes.reset();
  plan.achieved.latency.reset();
  const auto activations = ActivationBitsOf(plan);
  const bool rounds =
      std::any_of(activations.begin(), activations.end(), [](int bits) { return bits <= kWidestRounding; });
  if (rounds || plan.budget.Find(ActivationMemory()) != nullptr) {
    plan.achieved.activation_bytes = PeakActivationBytes(Timeline(), activations);
  }
  if (recipe_.allocate.latency.empty()) return;
  std::vector<Unit> units(plan.layers.size());
  PriceUnits(units, Model());
  std::int64_t nanoseconds = 0;
  for (std::size_t l = 0; l < units.size(); ++l) {
    const PlanLayer& layer = plan.layers[l];
    units[l].name = layer.name;
    units[l].activation_bits = layer.bits > 8 ? kFloatBits : layer.activation_bits;
    nanoseconds += Cost(units[l], layer.bits > 8 ? kFloatBits : layer.bits, Latency());
  }
  plan.achieved.latency = static_cast<double>(nanoseconds) / Latency().scale;
}

}  // namespace bitplan::pipeline
