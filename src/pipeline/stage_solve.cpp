// From a table to bits.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/constraints.h"
#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/sensitivity/network_oracle.h"
#include "io/json_text.h"
#include "pipeline/clock.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

constexpr int kOracleBatch = 128;

// One number for one limit, as earlier versions wrote it; a list for several.
template <typename T>
nlohmann::json PerLimitJson(const std::vector<T>& values) {
  if (values.empty()) return T{};
  return values.size() == 1 ? nlohmann::json(values.front()) : nlohmann::json(values);
}

template <typename T>
std::vector<T> PerLimit(const nlohmann::json& json) {
  return json.is_array() ? json.get<std::vector<T>>() : std::vector<T>{json.get<T>()};
}

std::string FactsOf(const Allocation& answer) {
  const nlohmann::json facts = {{"bits", answer.bits},
                                {"cost", PerLimitJson(answer.cost)},
                                {"predicted_loss_rise", answer.predicted_loss_rise},
                                {"lower_bound", answer.lower_bound},
                                {"has_bound", answer.has_bound},
                                {"shadow_price", PerLimitJson(answer.shadow_prices)},
                                {"note", answer.note},
                                {"width_probabilities", answer.width_probabilities}};
  return JsonText(facts);
}

Allocation AllocationFrom(const std::string& text) {
  const auto facts = nlohmann::json::parse(text);
  return {.bits = facts.at("bits"),
          .cost = PerLimit<std::int64_t>(facts.at("cost")),
          .predicted_loss_rise = facts.at("predicted_loss_rise"),
          .lower_bound = facts.at("lower_bound"),
          .has_bound = facts.at("has_bound"),
          .shadow_prices = PerLimit<double>(facts.at("shadow_price")),
          .note = facts.at("note"),
          .width_probabilities = facts.at("width_probabilities")};
}

}  // namespace

std::string StageChain::MetricOf(const Allocator& allocator) const {
  const std::string own = allocator.metric;
  return own.empty() ? recipe_.sensitivity.metric : own;
}

std::unique_ptr<LikelihoodOracle> StageChain::Oracle(std::uint64_t seed) {
  oracle_inputs_ = std::make_unique<SensitivityInputs>(
      Inputs(recipe_.sensitivity.metric, recipe_.posterior.estimator, recipe_.quantizer.range == "posterior"));
  oracle_inputs_->seed = seed;
  return MakeNetworkOracle(*oracle_inputs_, kOracleBatch);
}

void StageChain::CheckBudget(const bitplan::Network& network) {
  AllocationProblem problem;
  problem.widths = Widths();
  for (const Layer& layer : network.layers) {
    Unit unit;
    unit.name = layer.name;
    unit.weights = layer.weights();
    unit.scales = recipe_.quantizer.granularity == "channel" ? layer.output_channels() : 1;
    unit.macs = layer.macs;
    problem.units.push_back(std::move(unit));
    problem.loss_rise.emplace_back(problem.widths.size(), 0.0);
  }
  PriceUnits(problem.units, network);
  try {
    CheckSolvable(problem, recipe_.allocate);
  } catch (const Error& error) {
    const std::string& format = recipe_.quantizer.exportable;
    if (error.kind() != ErrorKind::kInfeasible || format.empty()) throw;
    throw Error(error.kind(), fmt::format("{}; quantizer.exportable {} leaves the widths {}", error.what(), format,
                                          fmt::join(recipe_.allocate.bits, ", ")));
  }
}

Solution StageChain::Solve() {
  const auto outline = Outline();
  CheckResources(outline);
  if (recipe_.allocate.activation_bits.size() > 1) return SolvePairs(recipe_.allocate);
  CheckBudget(outline);
  const auto& allocator = FindAllocator(recipe_.allocate.allocator);
  const auto metric = MetricOf(allocator);
  const auto& measured = MeasuredTable(metric, recipe_.posterior.estimator);
  const auto& table = measured.problem;
  const auto draws = PosteriorDraws(metric, measured);
  const auto input = Sha256OfParts({"allocate/13", RangeEvidenceHash(), measured.content, draws.content, ModelInput(),
                                    AllocateInput(recipe_.allocate), Section("quantizer"),
                                    allocator.needs_oracle ? DataHash(false) : std::string(), CalibrationSeed()});
  const auto seed = recipe_.CalibrationSeed();
  const auto record = Ensure("allocate", input, {}, [&]() -> StageRecord {
    const auto oracle = allocator.needs_oracle ? Oracle(seed) : nullptr;
    const auto start = Clock::now();
    const auto answer = bitplan::Allocate(table, recipe_.allocate, seed, oracle.get(), progress_);
    const double allocate_ms = 1e3 * SecondsSince(start);
    auto pins = nlohmann::json::array();
    for (const auto& [pin, rise] : PinCosts(table, recipe_.allocate)) {
      pins.push_back({pin.pattern, pin.bits, rise ? nlohmann::json(*rise) : nlohmann::json()});
    }
    auto choices = nlohmann::json::array();
    for (const auto& [grid, range] : Quantized(answer.bits, {}).choices) choices.push_back({grid, range});
    const nlohmann::json facts = {{"allocate_ms", allocate_ms},
                                  {"bits", answer.bits},
                                  {"predicted_loss_rise", answer.predicted_loss_rise},
                                  {"optimality_gap", answer.optimality_gap()},
                                  {"shadow_price", PerLimitJson(answer.shadow_prices)},
                                  {"note", answer.note},
                                  {"width_probabilities", answer.width_probabilities},
                                  {"pins", pins},
                                  {"confidence", WidthConfidence(table, draws.draws, recipe_.allocate, seed, answer)},
                                  {"choices", choices}};
    return {.input = {}, .content = Sha256Hex(BitsText(answer.bits)), .facts = JsonText(facts)};
  });
  const auto facts = nlohmann::json::parse(record.facts);
  Solution solution{.bits = facts.at("bits"),
                    .choices = {},
                    .predicted_loss_rise = facts.at("predicted_loss_rise"),
                    .optimality_gap = facts.at("optimality_gap"),
                    .shadow_prices = PerLimit<double>(facts.at("shadow_price")),
                    .allocate_ms = facts.at("allocate_ms"),
                    .note = facts.at("note"),
                    .width_probabilities = facts.at("width_probabilities"),
                    .pins = {},
                    .confidence = facts.at("confidence")};
  for (const auto& choice : facts.at("choices")) solution.choices.push_back({choice.at(0), choice.at(1)});
  for (const auto& pin : facts.at("pins")) {
    PinCost& cost = solution.pins.emplace_back(PinCost{{pin.at(0), pin.at(1)}, std::nullopt});
    if (!pin.at(2).is_null()) cost.loss_rise = pin.at(2).get<double>();
  }
  return solution;
}

Allocation StageChain::Solve(const AllocateOptions& options, std::uint64_t seed, double& milliseconds, bool& learned) {
  const auto& allocator = FindAllocator(options.allocator);
  CheckResources(Model());
  const auto& measured = MeasuredTable(MetricOf(allocator), recipe_.posterior.estimator);
  learned = false;
  std::string input;
  if (allocator.needs_oracle) {
    AllocateOptions asked = options;
    asked.draws = AllocateOptions{}.draws;  // no confidence is stated here
    input = Sha256OfParts({"solve/4", measured.content, ModelInput(), DataHash(false), AllocateInput(asked),
                           Section("quantizer"), Section("sensitivity"),
                           std::to_string(seed) + (CalibrationSeed() == Seed() ? "" : " of " + CalibrationSeed())});
    if (const auto kept = folder_.Find("solve", input)) {
      milliseconds = 1e3 * kept->seconds;
      return AllocationFrom(kept->facts);
    }
    learned = true;
  }
  const auto oracle = allocator.needs_oracle ? Oracle(seed) : nullptr;
  const auto start = Clock::now();
  auto answer = bitplan::Allocate(measured.problem, options, seed, oracle.get(), progress_);
  milliseconds = 1e3 * SecondsSince(start);
  if (learned) {
    folder_.Complete("solve", {.input = input, .content = {}, .facts = FactsOf(answer), .seconds = 1e-3 * milliseconds},
                     {});
  }
  return answer;
}

}  // namespace bitplan::pipeline
