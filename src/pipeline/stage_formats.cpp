// Widths of weights and of activations together: a choice of a layer is a pair of both.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bitplan/allocators/choices.h"
#include "bitplan/core/constraints.h"
#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "io/json_text.h"
#include "models/inlined_graph.h"
#include "models/layer_reads.h"
#include "pipeline/checks.h"
#include "pipeline/clock.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"
#include "sensitivity/activation_levels.h"
#include "sensitivity/activation_tables.h"

namespace bitplan::pipeline {
namespace {

std::string Dump(const ActivationRises& rises) {
  return JsonText(nlohmann::json{{"widths", rises.widths},
                                 {"tensors", rises.tensors},
                                 {"loss_rise", rises.loss_rise},
                                 {"weight_widths", rises.weight_widths},
                                 {"together", rises.together}}) +
         "\n";
}

ActivationRises ParseActivationRises(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  return {json.at("widths"), json.at("tensors"), json.at("loss_rise"), json.at("weight_widths"), json.at("together")};
}

// What decides together: the layers of a group, and every other layer by itself. In the order of the first of each.
std::vector<std::vector<std::size_t>> LayersOfUnits(const ConstrainedProblem& constrained) {
  std::vector<std::vector<std::size_t>> units = constrained.layers;
  for (std::size_t l = 0; l < constrained.fixed_bits.size(); ++l) {
    if (constrained.fixed_bits[l] >= 0) units.push_back({l});
  }
  for (auto& layers : units) std::sort(layers.begin(), layers.end());
  std::sort(units.begin(), units.end());
  return units;
}

// Of every unit the tensor that stands for all that it reads: units with the same one agree on its width. The layers of
// a group share a width of activations too, so what they read goes together, and with it what others read of that.
std::vector<std::size_t> TensorsOfUnits(const std::vector<std::vector<std::size_t>>& units,
                                        const std::vector<std::size_t>& tensors) {
  std::vector<std::size_t> same(tensors.size());
  for (std::size_t t = 0; t < same.size(); ++t) same[t] = t;
  const auto first = [&](std::size_t tensor) {
    while (same[tensor] != tensor) tensor = same[tensor];
    return tensor;
  };
  for (const auto& layers : units) {
    for (const std::size_t l : layers) {
      const auto [low, high] = std::minmax({first(tensors[layers.front()]), first(tensors[l])});
      same[high] = low;
    }
  }
  std::vector<std::size_t> of_units;
  for (const auto& layers : units) of_units.push_back(first(tensors[layers.front()]));
  return of_units;
}

// Layers that are planned need a place where their inputs are rounded.
void RequirePlaces(const Network& network, const std::vector<int>& fixed) {
  const auto graph = InlinedGraph(network.module);
  const auto reads = FindLayerReads(*graph, network.module, network);
  for (std::size_t l = 0; l < fixed.size(); ++l) {
    if (fixed[l] <= 8 && network.layers[l].rounds_input()) RequirePlace(network, reads, l);
  }
}

// What a limit on the peak of activations asks of widths of tensors: a limit for every step that may exceed it.
struct PeakLimits {
  std::vector<ChoiceLimit> limits{};
  std::vector<std::vector<LiveTensor>> tensors{};  // [limits] whose widths are chosen
};

PeakLimits PeakLimitsOf(const ActivationTimeline& timeline, const std::vector<bool>& rounded, int widest,
                        const Limit& limit) {
  PeakLimits result;
  const auto most = static_cast<std::int64_t>(limit.value);
  for (const ActivationStep& step : timeline.steps) {
    std::int64_t base = step.float_bytes, widest_bytes = 0;
    std::vector<LiveTensor> chosen;
    for (const LiveTensor& live : step.rounded) {
      if (rounded[live.tensor]) {
        chosen.push_back(live);
        widest_bytes += BytesAt(live.elements, widest);
      } else {
        base += BytesAt(live.elements, kFloatBits);
      }
    }
    if (base + widest_bytes <= most) continue;  // never binds
    if (base > most) {
      throw Error(ErrorKind::kInfeasible,
                  fmt::format("budget activation_bytes {} cannot be met: {} are live in float while {} runs", most,
                              Counted(base, "byte"), step.where));
    }
    result.limits.push_back({LimitName(limit), most - base, base});
    result.tensors.push_back(std::move(chosen));
  }
  return result;
}

// Of every tensor whether a layer that is planned reads it: otherwise it stays in float.
std::vector<bool> RoundedTensors(const Network& network, const ActivationRises& rises, const std::vector<int>& fixed) {
  std::vector<bool> rounded(fixed.size(), false);
  for (std::size_t l = 0; l < fixed.size(); ++l) {
    if (fixed[l] <= 8 && network.layers[l].rounds_input()) rounded[rises.tensors[l]] = true;
  }
  return rounded;
}

// A unit per layer or group; its choices are the pairs of `table.widths` and `rises.widths` that are left to it.
StageChain::PairProblem PairsOf(const Network& network, const AllocationProblem& table, const ActivationRises& rises,
                                const AllocateOptions& options, const ActivationTimeline* timeline) {
  const ConstrainedProblem constrained = Constrain(table, options);
  const std::vector<int>& fixed = constrained.fixed_bits;
  StageChain::PairProblem pairs;
  pairs.layers = LayersOfUnits(constrained);
  ChoiceProblem& problem = pairs.problem;
  std::int64_t weights = 0;
  for (std::size_t l = 0; l < table.units.size(); ++l) weights += fixed[l] > 8 ? 0 : table.units[l].weights;
  const std::vector<bool> rounded = RoundedTensors(network, rises, fixed);
  PeakLimits peaks;
  for (std::size_t r = 0; r < options.budget.limits.size(); ++r) {
    const Limit& limit = options.budget.limits[r];
    const Resource& resource = limit.resource;
    if (resource.kind == ResourceKind::kPeak) continue;
    problem.limits.push_back(ChoiceLimitOf(limit, Capacity(weights, limit)));
    pairs.limit_of.push_back(r);
  }
  for (std::size_t r = 0; r < options.budget.limits.size(); ++r) {
    const Limit& limit = options.budget.limits[r];
    if (limit.resource.get().kind != ResourceKind::kPeak) continue;
    peaks = PeakLimitsOf(*timeline, rounded, rises.widths.back(), limit);
    problem.limits.insert(problem.limits.end(), peaks.limits.begin(), peaks.limits.end());
    pairs.limit_of.insert(pairs.limit_of.end(), peaks.limits.size(), r);
  }
  if (problem.limits.empty()) problem.limits.push_back({"nothing", 0});

  // What a pair of widths adds of one layer.
  const auto add = [&](std::size_t l, std::size_t k, std::size_t a, Choice& choice) {
    const bool left_alone = fixed[l] > 8;
    const int bits = left_alone ? kFloatBits : table.widths[k];
    if (!left_alone) choice.loss_rise += table.loss_rise[l][k];
    if (rounded[rises.tensors[l]]) choice.loss_rise += rises.loss_rise[l][a];
    Unit priced = table.units[l];
    priced.activation_bits = !left_alone && network.layers[l].rounds_input() ? rises.widths[a] : kFloatBits;
    std::size_t r = 0;
    for (const Limit& limit : options.budget.limits) {
      const Resource& resource = limit.resource;
      if (resource.kind == ResourceKind::kPeak) continue;
      const bool takes = !left_alone || resource.kind == ResourceKind::kTimed;
      choice.cost[r++] += takes ? Cost(priced, bits, resource) : 0;
    }
    for (const auto& tensors : peaks.tensors) {  // the first layer that reads a tensor answers for it
      for (const LiveTensor& live : tensors) {
        if (live.tensor == l) choice.cost[r] += BytesAt(live.elements, rises.widths[a]);
      }
      ++r;
    }
  };
  const std::vector<std::size_t> tensors = TensorsOfUnits(pairs.layers, rises.tensors);
  for (std::size_t u = 0; u < pairs.layers.size(); ++u) {
    const std::vector<std::size_t>& layers = pairs.layers[u];
    const int decided = fixed[layers.front()];
    ChoiceUnit unit;
    unit.name = table.units[layers.front()].name;
    if (std::count(tensors.begin(), tensors.end(), tensors[u]) > 1) unit.shared = table.units[tensors[u]].name;
    for (std::size_t k = 0; k < table.widths.size(); ++k) {
      const int bits = table.widths[k];
      const bool allowed = std::find(options.bits.begin(), options.bits.end(), bits) != options.bits.end();
      if (decided > 8 ? k > 0 : decided >= 0 ? bits != decided : !allowed) continue;
      for (std::size_t a = 0; a < rises.widths.size(); ++a) {
        const auto& asked = options.activation_bits;
        if (std::find(asked.begin(), asked.end(), rises.widths[a]) == asked.end()) continue;
        Choice& choice = unit.choices.emplace_back();
        choice.format = {decided > 8 ? kFloatBits : bits, rises.widths[a]};
        choice.part = static_cast<int>(a);
        choice.cost.assign(problem.limits.size(), 0);
        for (const std::size_t l : layers) add(l, k, a, choice);
      }
    }
    problem.units.push_back(std::move(unit));
  }
  return pairs;
}

}  // namespace

std::string StageChain::ActivationsInput(const std::string& metric_name) {
  // What is measured together with the weights hangs on how they are rounded.
  Recipe recipe = recipe_;
  recipe.sensitivity.metric = metric_name;
  const auto& options = recipe.sensitivity;
  const auto& metric = FindSensitivityMetric(metric_name);
  const bool with_weights = metric.takes_activations && options.coherence;
  auto widths = recipe_.allocate.activation_bits;
  std::sort(widths.begin(), widths.end());
  return Sha256OfParts({"activations/5", ModelInput(), DataHash(false), DumpRecipeSection(recipe, "sensitivity"),
                        recipe_.quantizer.activation_range, BitsText(widths),
                        metric.measure_activations != nullptr ? CentringName(CentringOf(recipe_.quantizer)) : "",
                        CalibrationSeed(), with_weights ? FitsInput() + " " + BitsText(Widths()) : std::string()});
}

StageRecord StageChain::KeepActivations(const std::string& stage, const ActivationRises& rises) {
  const auto text = Dump(rises);
  folder_.Write(CalibrationFile(stage + ".json"), text);
  return {.input = {}, .content = Sha256Hex(text), .facts = "{}"};
}

ActivationRises StageChain::ActivationTable(const std::string& metric_name) {
  const bool own = metric_name == recipe_.sensitivity.metric;
  const std::string stage = own ? "activations" : "activations-" + metric_name;
  const auto record =
      Ensure(stage, ActivationsInput(metric_name), {CalibrationFile(stage + ".json")}, [&]() -> StageRecord {
        auto widths = recipe_.allocate.activation_bits;
        std::sort(widths.begin(), widths.end());
        const auto& metric = FindSensitivityMetric(metric_name);
        const auto inputs = Inputs(metric.name, recipe_.posterior.estimator, false);
        const auto& range = recipe_.quantizer.activation_range;
        // Rises that add up with those of the weights: nats, measured in the same way where the metric has one.
        if (metric.measure_activations != nullptr && CountsNats(metric.name)) {
          return KeepActivations(stage,
                                 MeasureActivationTable(inputs, FitActivationLevels(inputs, widths, range), progress_));
        }
        if (metric.takes_activations && inputs.options.coherence && inputs.options.samples > 0) {
          // The table of weights was there already. Once more, for what both cost together.
          auto both = Inputs(metric.name, recipe_.posterior.estimator, NeedsPosterior() || metric.needs_posterior);
          ActivationMeter meter(both, widths, range);
          both.activations = &meter;
          (void)MeasureSensitivity(both, progress_);
          return KeepActivations(stage, meter.Finish(both.widths));
        }
        return KeepActivations(stage, MeasureActivationRises(inputs, widths, range, progress_));
      });
  return ParseActivationRises(ReadFile(folder_.File(record.files.front()), "sensitivity of activations"));
}

StageChain::PairProblem StageChain::Pairs(const AllocateOptions& options) {
  const std::string metric = MetricOf(FindAllocator(options.allocator));
  if (!CountsNats(metric)) {
    throw Error(ErrorKind::kUsage,
                "the metric " + metric +
                    " does not count nats, so what it says of weights and what widths of activations "
                    "cost cannot be added: set sensitivity.metric to posterior, and "
                    "allocate.allocator to exact, or give one activation width");
  }
  const auto& table = MeasuredTable(metric, recipe_.posterior.estimator).problem;
  RequirePlaces(Model(), Constrain(table, options).fixed_bits);
  const bool peaks = options.budget.Find(ActivationMemory()) != nullptr;
  CheckResources(Model());
  return PairsOf(Model(), table, ActivationTable(metric), options, peaks ? &Timeline() : nullptr);
}

double StageChain::ActivationRise(const std::vector<int>& activation_bits) {
  if (recipe_.allocate.activation_bits.size() < 2) return 0.0;
  const ActivationRises rises = ActivationTable();
  std::vector<bool> counted(activation_bits.size(), false);
  double sum = 0.0;
  for (std::size_t l = 0; l < activation_bits.size(); ++l) {
    const std::size_t tensor = rises.tensors[l];
    const auto width = std::find(rises.widths.begin(), rises.widths.end(), activation_bits[l]);
    if (width == rises.widths.end() || counted[tensor]) continue;
    counted[tensor] = true;
    sum += rises.loss_rise[tensor][static_cast<std::size_t>(width - rises.widths.begin())];
  }
  return sum;
}

double StageChain::BopsOfPair(const Format& pair) {
  AllocateOptions options = recipe_.allocate;
  options.allocator = "exact";  // whose table the recipe's is; the recipe's own allocator may take no part
  RequirePair(pair, options);
  const Resource& bops = FindResource("bops");
  options.bits = {pair.weights};
  options.activation_bits = {pair.activations};
  options.budget = {bops, 9e15 / bops.scale};
  const ChoiceProblem problem = Pairs(options).problem;
  std::int64_t cost = 0;
  for (const ChoiceUnit& unit : problem.units) cost += unit.choices.front().cost.front();
  return static_cast<double>(cost) / bops.scale;
}

Solution StageChain::SolvePairs(const AllocateOptions& options, std::optional<std::uint64_t> seed) {
  const auto [problem, limit_of, layers] = Pairs(options);
  const auto start = Clock::now();
  const auto answer =
      SolveChoices(problem, {.method = options.allocator, .seed = seed.value_or(recipe_.CalibrationSeed())});
  Solution solution;
  solution.allocate_ms = 1e3 * SecondsSince(start);
  solution.bits.resize(Model().layers.size());
  solution.activation_bits.resize(Model().layers.size());
  for (std::size_t u = 0; u < layers.size(); ++u) {
    const Format format = problem.units[u].choices[static_cast<std::size_t>(answer.chosen[u])].format;
    for (const std::size_t l : layers[u]) {
      solution.bits[l] = format.weights;
      const bool rounds = format.weights <= 8 && Model().layers[l].rounds_input();
      solution.activation_bits[l] = rounds ? format.activations : kFloatBits;
    }
  }
  solution.predicted_loss_rise = answer.loss_rise;
  solution.optimality_gap = answer.gap();
  solution.shadow_prices.assign(options.budget.limits.size(), 0.0);
  // One more of the limit is one more in every step.
  for (std::size_t r = 0; r < limit_of.size() && r < answer.prices.size(); ++r) {
    solution.shadow_prices[limit_of[r]] += answer.prices[r];
  }
  solution.choices = ChoicesFor(solution.bits);
  return solution;
}

}  // namespace bitplan::pipeline
