// The second reference of a plan, the float network with the plan's correction, and measurements that the folder keeps.
#include "bitplan/io/files.h"
#include "bitplan/ptq/correction.h"
#include "pipeline/measurement_text.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

std::vector<bool> RoundedLayers(const std::vector<int>& bits) {
  std::vector<bool> rounded;
  for (const int width : bits) rounded.push_back(width <= 8);
  return rounded;
}

}  // namespace

std::string StageChain::FloatCorrectedInput(const CorrectionMethod& method, const std::vector<int>& bits) const {
  if (!ChangesFloat(method)) return "";
  std::string input = method.batch_norm + " " + std::to_string(recipe_.quantizer.correction_samples);
  if (method.outputs == "off") return input;
  input += " " + method.outputs + " " + recipe_.quantizer.granularity + " ";
  for (const bool rounded : RoundedLayers(bits)) input += rounded ? "r" : "f";
  return input;
}

std::optional<torch::jit::Module> StageChain::FloatCorrectedAs(const CorrectionMethod& method,
                                                               const std::vector<int>& bits) {
  if (!ChangesFloat(method)) return std::nullopt;
  return CorrectFloat(Model(), method, RoundedLayers(bits), recipe_.quantizer, CorrectionImages());
}

Verification StageChain::MeasurePlan(const Plan& plan, const torch::jit::Module& quantized) {
  return Measure(Model().module, quantized, FloatCorrectedAs(CorrectionIn(plan), BitsOf(plan)));
}

const SplitMeasurement* StageChain::MeasureFloatCorrected(const CorrectionMethod& method,
                                                          const std::vector<int>& bits) {
  if (!ChangesFloat(method)) return nullptr;
  const auto input = Sha256OfParts({"float-corrected/3", ModelInput(), DataHash(false), DataHash(true),
                                    Section("verify"), CalibrationSeed(), FloatCorrectedInput(method, bits)});
  if (const auto found = floats_corrected_.find(input); found != floats_corrected_.end()) return &found->second;
  bool reused = false;
  const auto measurement = Kept(input, reused, [&]() -> PlanMeasurement {
    const auto corrected = FloatCorrectedAs(method, bits);
    return {.verify = Evaluated(*corrected, VerifySplit(), "verify float model, corrected"),
            .calibration = {},
            .correction = method};
  });
  return &floats_corrected_.emplace(input, measurement.verify).first->second;
}

PlanMeasurement StageChain::Kept(const std::string& input, bool& reused, const std::function<PlanMeasurement()>& work) {
  const auto file = folder_.File("compare/" + input.substr(0, 24) + ".json");
  reused = false;
  if (std::filesystem::exists(file)) {
    if (const auto saved = ParseMeasurement(ReadFile(file, "measurement"), input)) {
      reused = true;
      return *saved;
    }
  }
  const auto measurement = work();
  EnsureWritableFolder(file.parent_path());
  WriteFileAtomically(file, DumpMeasurement(measurement, input));
  return measurement;
}

}  // namespace bitplan::pipeline
