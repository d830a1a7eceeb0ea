#include "pipeline/plan_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

#include "bitplan/io/files.h"

namespace bitplan::pipeline {

double Rounded(double value, int decimals) {
  const double factor = std::pow(10.0, decimals);
  return std::round(value * factor) / factor + 0.0;  // no negative zero
}

double RoundedToDigits(double value, int digits) {
  if (value == 0.0 || !std::isfinite(value)) return value;
  char text[64];
  std::snprintf(text, sizeof text, "%.*e", digits - 1, value);
  return std::strtod(text, nullptr);
}

std::vector<int> BitsOf(const Plan& plan) {
  std::vector<int> bits;
  for (const auto& layer : plan.layers) bits.push_back(layer.bits);
  return bits;
}

std::vector<int> ActivationBitsOf(const Plan& plan) {
  std::vector<int> bits;
  for (const auto& layer : plan.layers) bits.push_back(layer.activation_bits);
  return bits;
}

std::vector<LevelChoice> ChoicesOf(const Plan& plan) {
  std::vector<LevelChoice> choices;
  for (const auto& layer : plan.layers) choices.push_back({layer.grid, layer.range});
  return choices;
}

void SetChoices(Plan& plan, const std::vector<LevelChoice>& choices) {
  for (std::size_t i = 0; i < choices.size(); ++i) {
    plan.layers[i].grid = choices[i].grid;
    plan.layers[i].range = choices[i].range;
  }
}

void ForgetActivations(QuantizerOptions& options) {
  const QuantizerOptions defaults;
  options.activation_range = defaults.activation_range;
  options.activation_sums = defaults.activation_sums;
  options.range_sweeps = defaults.range_sweeps;
}

bool CountsNats(const std::string& metric) {
  return metric == "posterior" || metric == "measured" || metric == "predictive" || metric == "compensated";
}

std::string RiseUnit(const std::string& metric) {
  return CountsNats(metric) ? "nats per sample" : "as " + metric + " counts";
}

std::string BitsText(const std::vector<int>& bits) {
  std::string text;
  for (const int width : bits) text += std::to_string(width) + " ";
  return text;
}

void SetCorrection(Plan& plan, const CorrectionMethod& method) {
  plan.quantizer.batch_norm = method.batch_norm;
  plan.quantizer.output_correction = method.outputs;
}

CorrectionMethod CorrectionIn(const Plan& plan) {
  return {plan.quantizer.batch_norm, plan.quantizer.output_correction};
}

void FollowQuantizer(const QuantizerOptions& plan, QuantizerOptions& options) {
  options.scheme = plan.scheme;
  options.granularity = plan.granularity;
  options.range = plan.range;
  options.rounding = plan.rounding;
  options.centring = plan.centring;
  options.batch_norm = plan.batch_norm;
  options.output_correction = plan.output_correction;
  options.activation_range = plan.activation_range;
  options.range_sweeps = plan.range_sweeps;
  options.activation_sums = plan.activation_sums;
  options.learned_steps = plan.learned_steps;
  options.learned_samples = plan.learned_samples;
  options.learned_rate = plan.learned_rate;
  options.exportable = plan.exportable;
}

std::string CodesKey(const Plan& plan) {
  const auto& quantizer = plan.quantizer;
  std::vector<std::string> parts = {
      "codes/2",       plan.model.sha256,  plan.posterior_sha256, quantizer.scheme,     quantizer.granularity,
      quantizer.range, quantizer.rounding, quantizer.centring,    quantizer.batch_norm, quantizer.output_correction};
  if (quantizer.learned_steps > 0) {
    parts.push_back(
        fmt::format("learned {} {} {}", quantizer.learned_steps, quantizer.learned_samples, quantizer.learned_rate));
  }
  if (!quantizer.exportable.empty()) parts.push_back("exportable " + quantizer.exportable);
  const bool seed = plan.calibration && plan.calibration->seed;
  parts.push_back(seed ? std::to_string(*plan.calibration->seed) : "");
  for (const auto& layer : plan.layers) {
    parts.insert(parts.end(), {layer.name, std::to_string(layer.bits), layer.grid, layer.range});
    if (layer.activation_bits <= 16) {
      parts.push_back(quantizer.activation_range + " " + std::to_string(layer.activation_bits));
      if (quantizer.range_sweeps > 0) parts.push_back(fmt::format("refined {}", quantizer.range_sweeps));
      if (quantizer.activation_sums != "float") parts.push_back("sums " + quantizer.activation_sums);
    }
  }
  Sha256 hash;
  for (const auto& part : parts) hash.Update(std::to_string(part.size())).Update(":").Update(part);
  return hash.Hex();
}

}  // namespace bitplan::pipeline
