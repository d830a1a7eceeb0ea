// What was measured, as it stands in the manifest of a folder and in the files of a comparison.
#pragma once

#include <optional>
#include <string>

#include "bitplan/core/plan.h"
#include "bitplan/ptq/correction.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {

// Figures of a verified plan.
[[nodiscard]] std::string FactsOf(const Verification& verified);
[[nodiscard]] Verification VerificationOf(const std::string& facts);

// A correction, and the float network's accuracy on calibration images where it was measured.
[[nodiscard]] std::string FactsOf(const Correction& correction, std::optional<double> calibration_accuracy);
[[nodiscard]] std::optional<double> CalibrationAccuracyOf(const std::string& text);
[[nodiscard]] Correction CorrectionOf(const std::string& facts);

// One row of a comparison, image by image; `input` is the hash of what it depends on.
[[nodiscard]] std::string DumpMeasurement(const PlanMeasurement& measurement, const std::string& input);
// Nothing when the file is for something else or was damaged: then the plan is measured again.
[[nodiscard]] std::optional<PlanMeasurement> ParseMeasurement(const std::string& text, const std::string& input);

}  // namespace bitplan::pipeline
