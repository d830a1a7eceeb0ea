#include "pipeline/measurement_text.h"

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "io/json_text.h"

namespace bitplan::pipeline {
namespace {

nlohmann::json ToJson(const Metrics& metrics) {
  nlohmann::json json = {metrics.accuracy, metrics.nll, metrics.brier, metrics.ece};
  for (const auto& [name, value] : metrics.figures) json.push_back({name, value});
  return json;
}

Metrics MetricsFrom(const nlohmann::json& json) {
  Metrics metrics{json.at(0), json.at(1), json.at(2), json.at(3)};
  for (std::size_t i = 4; i < json.size(); ++i) metrics.figures.push_back({json.at(i).at(0), json.at(i).at(1)});
  return metrics;
}

nlohmann::json ToJson(const PairedComparison& drop) { return {drop.drop, drop.ci_low, drop.ci_high, drop.mcnemar_p}; }

PairedComparison PairedFrom(const nlohmann::json& json) { return {json.at(0), json.at(1), json.at(2), json.at(3)}; }

nlohmann::ordered_json SplitJson(const SplitMeasurement& measured) {
  std::string correct, nll;
  for (const auto hit : measured.correct) correct += hit != 0 ? '1' : '0';
  for (const float value : measured.nll) nll += (nll.empty() ? "" : " ") + nlohmann::json(value).dump();
  const auto& metrics = measured.metrics;
  nlohmann::ordered_json json = {{"data", measured.data},  {"accuracy", metrics.accuracy}, {"nll", metrics.nll},
                                 {"brier", metrics.brier}, {"ece", metrics.ece},           {"correct", correct},
                                 {"nll_of_images", nll}};
  if (!measured.possible.empty()) {
    for (const auto& [name, value] : metrics.figures) json["figures"].push_back({name, value});
    json["gained"] = measured.gained;
    json["possible"] = measured.possible;
  }
  return json;
}

SplitMeasurement SplitOf(const nlohmann::json& json) {
  SplitMeasurement measured{
      json.at("data"), {json.at("accuracy"), json.at("nll"), json.at("brier"), json.at("ece")}, {}, {}};
  for (const char c : json.at("correct").get<std::string>()) measured.correct.push_back(c == '1' ? 1 : 0);
  const auto nll = json.at("nll_of_images").get<std::string>();
  for (const char* at = nll.c_str(); *at != '\0';) {
    char* end = nullptr;
    measured.nll.push_back(std::strtof(at, &end));
    if (end == at) throw std::invalid_argument("no number");
    at = *end == ' ' ? end + 1 : end;
  }
  if (json.contains("possible")) {
    for (const auto& figure : json.at("figures")) measured.metrics.figures.push_back({figure.at(0), figure.at(1)});
    measured.gained = json.at("gained").get<std::vector<double>>();
    measured.possible = json.at("possible").get<std::vector<double>>();
  }
  const std::size_t scored = measured.possible.empty() ? measured.correct.size() : measured.possible.size();
  if (measured.nll.size() != scored || measured.gained.size() != measured.possible.size()) {
    throw std::invalid_argument("a measurement is cut short");
  }
  return measured;
}

}  // namespace

std::string FactsOf(const Verification& verified) {
  nlohmann::json facts = {{"data", verified.data},
                          {"samples", verified.samples},
                          {"float", ToJson(verified.float_model)},
                          {"quantized", ToJson(verified.quantized)},
                          {"drop", ToJson(verified.accuracy_drop)}};
  if (!verified.task.empty()) facts["task"] = verified.task;
  if (const auto& corrected = verified.float_corrected) {
    facts["float_corrected"] = ToJson(corrected->metrics);
    facts["drop_corrected"] = ToJson(corrected->accuracy_drop);
  }
  return JsonText(facts);
}

Verification VerificationOf(const std::string& text) {
  const auto facts = nlohmann::json::parse(text);
  Verification verified{.data = facts.at("data"),
                        .samples = facts.at("samples"),
                        .float_model = MetricsFrom(facts.at("float")),
                        .quantized = MetricsFrom(facts.at("quantized")),
                        .accuracy_drop = PairedFrom(facts.at("drop"))};
  verified.task = facts.value("task", "");
  if (facts.contains("float_corrected")) {
    verified.float_corrected =
        FloatCorrected{MetricsFrom(facts.at("float_corrected")), PairedFrom(facts.at("drop_corrected"))};
  }
  return verified;
}

std::string FactsOf(const Correction& correction, std::optional<double> calibration_accuracy) {
  auto candidates = nlohmann::json::array();
  for (const auto& [method, nll] : correction.candidates)
    candidates.push_back({method.batch_norm, method.outputs, nll});
  nlohmann::json facts = {
      {"batch_norm", correction.chosen.batch_norm}, {"outputs", correction.chosen.outputs}, {"candidates", candidates}};
  if (calibration_accuracy) facts["calibration_accuracy"] = *calibration_accuracy;
  if (const auto& learned = correction.learned) {
    facts["learned"] = {learned->held_out, learned->before, learned->after,
                        learned->moved,    learned->codes,  learned->kept};
  }
  return JsonText(facts);
}

std::optional<double> CalibrationAccuracyOf(const std::string& text) {
  const auto facts = nlohmann::json::parse(text);
  if (!facts.contains("calibration_accuracy")) return std::nullopt;
  return facts.at("calibration_accuracy").get<double>();
}

Correction CorrectionOf(const std::string& text) {
  const auto facts = nlohmann::json::parse(text);
  Correction correction{.chosen = {facts.at("batch_norm"), facts.at("outputs")}, .candidates = {}, .learned = {}};
  for (const auto& candidate : facts.at("candidates")) {
    correction.candidates.push_back({{candidate.at(0), candidate.at(1)}, candidate.at(2)});
  }
  if (facts.contains("learned")) {
    const auto& learned = facts.at("learned");
    correction.learned =
        LearnedRounding{learned.at(0), learned.at(1), learned.at(2), learned.at(3), learned.at(4), learned.at(5)};
  }
  return correction;
}

std::string DumpMeasurement(const PlanMeasurement& measurement, const std::string& input) {
  auto choices = nlohmann::ordered_json::array();
  for (const auto& [grid, range] : measurement.choices) choices.push_back({grid, range});
  const nlohmann::ordered_json json = {{"input", input},
                                       {"batch_norm", measurement.correction.batch_norm},
                                       {"outputs", measurement.correction.outputs},
                                       {"choices", choices},
                                       {"verify", SplitJson(measurement.verify)},
                                       {"calibration", SplitJson(measurement.calibration)}};
  return JsonText(json, 1) + "\n";
}

std::optional<PlanMeasurement> ParseMeasurement(const std::string& text, const std::string& input) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("input", "") != input) return std::nullopt;
  try {
    PlanMeasurement measurement{.verify = SplitOf(json.at("verify")),
                                .calibration = SplitOf(json.at("calibration")),
                                .correction = {json.at("batch_norm"), json.at("outputs")}};
    for (const auto& choice : json.at("choices")) measurement.choices.push_back({choice.at(0), choice.at(1)});
    return measurement;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  } catch (const std::invalid_argument&) {
    return std::nullopt;
  }
}

}  // namespace bitplan::pipeline
