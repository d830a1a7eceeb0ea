// The last stages of the chain, apply and verify, and where plans and networks lie in the folder.
#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <string_view>

#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/io/recipe.h"
#include "bitplan/verify/correction.h"
#include "io/yaml_text.h"
#include "pipeline/measurement_text.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

std::string BitsAndChoices(const Plan& plan) {
  std::string text;
  for (const auto& layer : plan.layers) {
    text += layer.name + " " + std::to_string(layer.bits) + " " + layer.grid + " " + layer.range + "\n";
  }
  return text;
}

}  // namespace

// The plan says how it is quantized, so `verify` of a plan that `run` made finds what `run` did.
std::string StageChain::ApplyInput(const Plan& plan) {
  Recipe recipe = recipe_;
  FollowQuantizer(plan.quantizer, recipe.quantizer);
  recipe.quantizer.centring = CentringName(CentringOf(recipe.quantizer));
  return Sha256OfParts({"apply/12", ModelRecord().content, DataHash(false), DumpRecipeSection(recipe, "quantizer"),
                        BitsAndChoices(plan), CalibrationSeed(), RangeEvidenceHash()});
}

std::string StageChain::VerifyInput(const StageRecord& apply, const Plan& plan) {
  const auto reference = FloatCorrectedInput(CorrectionOf(apply.facts).chosen, BitsOf(plan));
  return Sha256OfParts({"verify/3", ModelRecord().content, apply.content, DataHash(true), Section("verify"),
                        CalibrationSeed(),
                        reference, reference.empty() ? "" : DataHash(false)});
}

std::string StageChain::PlaceOf(const Plan& plan, bool edited) {
  Plan asked = plan;
  // As the recipe has it: what "auto" chose is known only later.
  SetCorrection(asked, {asked_.quantizer.batch_norm, asked_.quantizer.output_correction});
  std::string options;
  for (const auto& [key, value] : plan.allocator_options) options += key + "=" + value + " ";
  const auto maker = edited ? std::string("edited") : plan.allocator;
  const auto budget = BudgetName(plan.budget.kind) + ("-" + FormatBudgetValue(plan.budget));
  const auto key = Sha256OfParts({"place/1", ApplyInput(asked), maker, options, std::to_string(plan.seed), budget});
  auto name = budget + "-" + maker + "-" + key.substr(0, 8);
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && std::string_view("._-").find(c) == std::string_view::npos) {
      c = '_';
    }
  }
  return "plans/" + name;
}

void StageChain::WritePlan(const Plan& plan, const std::string& place, bool edited) {
  const auto text = DumpPlan(plan);
  folder_.Write(place + "/plan.yaml", text);
  if (edited) {
    WriteFileAtomically(folder_.File("plan.yaml"), text);
  } else {
    folder_.Write("plan.yaml", text);
  }
}

void StageChain::PlaceNetwork(StageRecord& apply, const std::string& network) {
  if (apply.files.front() != network) {  // another plan has the same network
    folder_.Link(network, apply.files.front());
    folder_.Complete("apply", apply, {network});
    apply.files = {network};
  }
  folder_.Link("quantized.pt", network);
}

bool StageChain::PutInPlace(Plan& plan) {
  const auto place = PlaceOf(plan, false);
  auto apply = folder_.Find("apply", ApplyInput(plan));
  if (apply) {
    PlaceNetwork(*apply, place + "/quantized.pt");
    if (const auto verify = folder_.Find("verify", VerifyInput(*apply, plan))) {
      SetCorrection(plan, CorrectionOf(apply->facts).chosen);
      calibration_accuracy_ = CalibrationAccuracyOf(apply->facts);
      plan.verified = VerificationOf(verify->facts);
    }
  }
  WritePlan(plan, place, false);
  return apply.has_value();
}

std::vector<CorrectionCandidate> StageChain::VerifyInFolder(Plan& plan, bool edited) {
  const auto place = PlaceOf(plan, edited), network = place + "/quantized.pt";
  plan.verified.reset();
  auto apply = Ensure("apply", ApplyInput(plan), {network}, [&]() -> StageRecord {
    WritePlan(plan, place, edited);
    auto& applied = Quantized(BitsOf(plan), ChoicesOf(plan));
    const auto correction = Correct(applied, BitsOf(plan));
    RestoreChangedByForward(Model(), applied.module);
    folder_.Write(network, [&](const std::filesystem::path& file) { SaveModule(applied.module, file); });
    const auto content = ModelHash(applied.module);
    quantized_.reset();  // it is corrected now; whoever wants plain weights quantizes again
    return {.input = {}, .content = content, .facts = FactsOf(correction, CalibrationAccuracy())};
  });
  PlaceNetwork(apply, network);
  const auto correction = CorrectionOf(apply.facts);
  calibration_accuracy_ = CalibrationAccuracyOf(apply.facts);
  SetCorrection(plan, correction.chosen);
  // Whoever asks for the corrections that "auto" chose gets the same network.
  if (const auto chosen = ApplyInput(plan); chosen != apply.input && !folder_.Find("apply", chosen)) {
    auto record = apply;
    record.input = chosen;
    record.facts = FactsOf(Correction{correction.chosen, {}}, calibration_accuracy_);
    folder_.Complete("apply", record, {network});
  }
  const auto verify = Ensure("verify", VerifyInput(apply, plan), {}, [&]() -> StageRecord {
    WritePlan(plan, place, edited);
    return {.input = {}, .content = {}, .facts = FactsOf(MeasurePlan(plan, LoadModule(folder_.File(network))))};
  });
  plan.verified = VerificationOf(verify.facts);
  WritePlan(plan, place, edited);
  plan = LoadPlan(folder_.File("plan.yaml"));
  return correction.candidates;
}

std::vector<CorrectionCandidate> StageChain::VerifyInMemory(Plan& plan) {
  auto applied = Quantized(BitsOf(plan), ChoicesOf(plan));
  quantized_.reset();
  const auto correction = Correct(applied, BitsOf(plan));
  SetCorrection(plan, correction.chosen);
  calibration_accuracy_ = CalibrationAccuracy();
  plan.verified = MeasurePlan(plan, applied.module);
  return correction.candidates;
}

}  // namespace bitplan::pipeline
