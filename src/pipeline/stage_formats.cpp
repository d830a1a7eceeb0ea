// Widths of weights and of activations together: a choice of a layer is a pair of both.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "bitplan/allocators/choices.h"
#include "bitplan/core/constraints.h"
#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "io/json_text.h"
#include "pipeline/clock.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

std::string Dump(const ActivationRises& rises) {
  return JsonText(
             nlohmann::json{{"widths", rises.widths}, {"tensors", rises.tensors}, {"loss_rise", rises.loss_rise}}) +
         "\n";
}

ActivationRises ParseActivationRises(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  return {json.at("widths"), json.at("tensors"), json.at("loss_rise")};
}

// What decisions of the user leave of every layer: a width of its weights, float, or -1 where it is free.
std::vector<int> FixedBits(const AllocationProblem& table, const AllocateOptions& options) {
  const ConstrainedProblem constrained = Constrain(table, options);
  if (std::any_of(constrained.layers.begin(), constrained.layers.end(),
                  [](const auto& members) { return members.size() > 1; })) {
    throw Error(ErrorKind::kUsage,
                "allocate.groups and several widths in allocate.activation_bits do not go together yet; give one "
                "activation width, or no groups");
  }
  return constrained.fixed_bits;
}

// One unit per layer; its choices are the pairs of `table.widths` and `rises.widths` that are left to it.
ChoiceProblem PairsOf(const AllocationProblem& table, const ActivationRises& rises, const AllocateOptions& options) {
  const std::vector<int> fixed = FixedBits(table, options);
  ChoiceProblem problem;
  std::int64_t weights = 0;
  for (std::size_t l = 0; l < table.units.size(); ++l) weights += fixed[l] > 8 ? 0 : table.units[l].weights;
  for (const Limit& limit : options.budget.limits) {
    problem.limits.push_back({LimitName(limit), Capacity(weights, limit)});
  }
  for (std::size_t l = 0; l < table.units.size(); ++l) {
    ChoiceUnit unit;
    unit.name = table.units[l].name;
    const std::size_t tensor = rises.tensors[l];
    if (std::count(rises.tensors.begin(), rises.tensors.end(), tensor) > 1) unit.shared = table.units[tensor].name;
    for (std::size_t k = 0; k < table.widths.size(); ++k) {
      const int bits = table.widths[k];
      const bool left_alone = fixed[l] > 8;
      const bool allowed = std::find(options.bits.begin(), options.bits.end(), bits) != options.bits.end();
      if (left_alone ? k > 0 : fixed[l] >= 0 ? bits != fixed[l] : !allowed) continue;
      for (std::size_t a = 0; a < rises.widths.size(); ++a) {
        Choice choice{.format = {left_alone ? kFloatBits : bits, rises.widths[a]}, .part = static_cast<int>(a)};
        if (!left_alone) choice.loss_rise = table.loss_rise[l][k];
        choice.loss_rise += rises.loss_rise[l][a];
        Unit priced = table.units[l];
        priced.activation_bits = rises.widths[a];
        for (const Limit& limit : options.budget.limits) {
          choice.cost.push_back(left_alone ? 0 : Cost(priced, bits, limit.resource));
        }
        unit.choices.push_back(std::move(choice));
      }
    }
    problem.units.push_back(std::move(unit));
  }
  return problem;
}

}  // namespace

ActivationRises StageChain::ActivationTable() {
  const auto input = Sha256OfParts({"activations/1", ModelInput(), DataHash(false), Section("sensitivity"),
                                    recipe_.quantizer.activation_range, BitsText(recipe_.allocate.activation_bits),
                                    CalibrationSeed()});
  const auto file = CalibrationFile("activations.json");
  const auto record = Ensure("activations", input, {file}, [&]() -> StageRecord {
    auto widths = recipe_.allocate.activation_bits;
    std::sort(widths.begin(), widths.end());
    const auto inputs = Inputs(recipe_.sensitivity.metric, recipe_.posterior.estimator, false);
    const auto text = Dump(MeasureActivationRises(inputs, widths, recipe_.quantizer.activation_range, progress_));
    folder_.Write(file, text);
    return {.input = {}, .content = Sha256Hex(text), .facts = "{}"};
  });
  return ParseActivationRises(ReadFile(folder_.File(record.files.front()), "sensitivity of activations"));
}

ChoiceProblem StageChain::Pairs(const AllocateOptions& options) {
  const auto& table = MeasuredTable(MetricOf(FindAllocator(options.allocator)), recipe_.posterior.estimator).problem;
  return PairsOf(table, ActivationTable(), options);
}

Solution StageChain::SolvePairs(const AllocateOptions& options) {
  const auto problem = Pairs(options);
  const auto start = Clock::now();
  const auto answer = SolveChoices(problem, {.method = options.allocator, .seed = recipe_.CalibrationSeed()});
  Solution solution;
  solution.allocate_ms = 1e3 * SecondsSince(start);
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    const Format format = problem.units[l].choices[static_cast<std::size_t>(answer.chosen[l])].format;
    solution.bits.push_back(format.weights);
    solution.activation_bits.push_back(format.activations);
  }
  solution.predicted_loss_rise = answer.loss_rise;
  solution.optimality_gap = answer.gap();
  solution.shadow_prices = answer.prices;
  solution.choices = ChoicesFor(solution.bits);
  return solution;
}

}  // namespace bitplan::pipeline
