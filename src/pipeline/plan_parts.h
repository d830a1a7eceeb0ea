// What the stages read from a plan and write into one.
#pragma once

#include <string>
#include <vector>

#include "bitplan/core/correction.h"
#include "bitplan/core/options.h"
#include "bitplan/core/plan.h"
#include "bitplan/quantizers/quantizer.h"

namespace bitplan::pipeline {

// A figure as files keep it: the same on every machine that computes almost the same.
[[nodiscard]] double Rounded(double value, int decimals);
[[nodiscard]] double RoundedToDigits(double value, int digits);  // significant ones

// Of every layer.
[[nodiscard]] std::vector<int> BitsOf(const Plan& plan);
[[nodiscard]] std::vector<int> ActivationBitsOf(const Plan& plan);
[[nodiscard]] std::vector<LevelChoice> ChoicesOf(const Plan& plan);
void SetChoices(Plan& plan, const std::vector<LevelChoice>& choices);

// What concerns rounded activations as in a plan that has none.
void ForgetActivations(QuantizerOptions& options);

// Whether the loss rises of a sensitivity metric are nats per sample.
[[nodiscard]] bool CountsNats(const std::string& metric);
// What the loss rises of a sensitivity metric count: "nats per sample", or "as hawq counts" of a peer's.
[[nodiscard]] std::string RiseUnit(const std::string& metric);

// "8 2 4 ", as hashes take them.
[[nodiscard]] std::string BitsText(const std::vector<int>& bits);

void SetCorrection(Plan& plan, const CorrectionMethod& method);
[[nodiscard]] CorrectionMethod CorrectionIn(const Plan& plan);
// Sets in `options` what of a quantizer a plan states.
void FollowQuantizer(const QuantizerOptions& plan, QuantizerOptions& options);

// Names within the folder of a plan: the plan, its network, and the codes that the network was made from.
inline constexpr char kPlanFile[] = "plan.yaml", kNetworkFile[] = "quantized.pt", kCodesFile[] = "codes.safetensors";

// Hash of what the codes of a plan's network depend on, as far as the plan states it: model, quantizer, corrections,
// and width, grid and range of every layer.
[[nodiscard]] std::string CodesKey(const Plan& plan);

// The stage under which a folder records that a format was exported; its input is the plan's CodesKey.
[[nodiscard]] inline std::string ExportStage(const std::string& format) { return "export-" + format; }

}  // namespace bitplan::pipeline
