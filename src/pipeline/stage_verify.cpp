// The last stages of the chain, apply and verify, and where plans, networks and codes lie in the folder.
#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <string_view>

#include "bitplan/core/error.h"
#include "bitplan/exporters/quantized_network.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/io/recipe.h"
#include "bitplan/ptq/correction.h"
#include "io/yaml_text.h"
#include "pipeline/measurement_text.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

std::string BitsAndChoices(const Plan& plan) {
  std::string text;
  for (const auto& layer : plan.layers) {
    text += layer.name + " " + std::to_string(layer.bits) + " " + layer.grid + " " + layer.range;
    if (layer.activation_bits <= 16) text += " activations/3 " + std::to_string(layer.activation_bits);
    text += "\n";
  }
  return text;
}

void StateLearned(Plan& plan, const Correction& correction) {
  plan.learned.reset();
  if (const auto& learned = correction.learned) {
    const double codes = static_cast<double>(std::max<std::int64_t>(1, learned->codes));
    plan.learned = PlanLearned{.images = learned->held_out,
                               .before = RoundedToDigits(learned->before, 6),
                               .after = RoundedToDigits(learned->after, 6),
                               .moved = learned->kept ? Rounded(static_cast<double>(learned->moved) / codes, 6) : 0.0,
                               .kept = learned->kept};
  }
}

}  // namespace

// The plan says how it is quantized, so `verify` of a plan that `run` made finds what `run` did.
std::string StageChain::ApplyInput(const Plan& plan) {
  Recipe recipe = recipe_;
  FollowQuantizer(plan.quantizer, recipe.quantizer);
  recipe.quantizer.centring = CentringName(CentringOf(recipe.quantizer));
  if (!RoundsActivations(plan)) ForgetActivations(recipe.quantizer);
  return Sha256OfParts({"apply/18", ModelInput(), DataHash(false),
                        DumpRecipeSection(recipe, "quantizer") + LimitsText(recipe.quantizer.limits),
                        BitsAndChoices(plan), CalibrationSeed(),
                        RangeEvidenceHash() + (plan.quantizer.learned_steps > 0 ? " learned/2" : "")});
}

std::string StageChain::VerifyInput(const StageRecord& apply, const Plan& plan) {
  const auto reference = FloatCorrectedInput(CorrectionOf(apply.facts).chosen, BitsOf(plan));
  return Sha256OfParts({"verify/4", ModelInput(), apply.content, DataHash(true), Section("verify"), CalibrationSeed(),
                        reference, reference.empty() ? "" : DataHash(false)});
}

std::string StageChain::PlaceOf(const Plan& plan, bool edited) {
  Plan asked = plan;
  // As the recipe has it: what "auto" chose is known only later.
  SetCorrection(asked, {asked_.quantizer.batch_norm, asked_.quantizer.output_correction});
  std::string options;
  for (const auto& [key, value] : plan.allocator_options) options += key + "=" + value + " ";
  const auto maker = edited ? std::string("edited") : plan.allocator;
  std::string budget;
  for (const auto& limit : plan.budget.limits) {
    budget += (budget.empty() ? "" : "-") + LimitName(limit) + "-" + FormatLimitValue(limit);
  }
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

void StageChain::PlaceNetwork(StageRecord& apply, const std::string& place) {
  const std::vector<std::string> names = {kCodesFile, kNetworkFile};  // in alphabetical order, as a record has them
  std::vector<std::string> files;
  for (const auto& name : names) files.push_back(place + "/" + name);
  if (apply.files != files) {  // another plan has the same network
    for (std::size_t i = 0; i < files.size(); ++i) folder_.Link(files[i], apply.files[i]);
    folder_.Complete("apply", apply, files);
    apply.files = files;
  }
  for (std::size_t i = 0; i < files.size(); ++i) folder_.Link(names[i], files[i]);
}

bool StageChain::PutInPlace(Plan& plan) {
  const auto place = PlaceOf(plan, false);
  auto apply = folder_.Find("apply", ApplyInput(plan));
  if (apply) {
    PlaceNetwork(*apply, place);
    const auto verify = folder_.Find("verify", VerifyInput(*apply, plan));
    const auto correction = CorrectionOf(apply->facts);
    SetCorrection(plan, correction.chosen);
    StateLearned(plan, correction);
    if (verify) {
      calibration_accuracy_ = CalibrationAccuracyOf(apply->facts);
      plan.verified = VerificationOf(verify->facts);
    }
  }
  WritePlan(plan, place, false);
  return apply.has_value();
}

std::int64_t StageChain::PackedBytesWith(QuantizedNetwork codes, const torch::jit::Module& module, const Plan& plan) {
  try {
    AddOthers(codes, module);
    codes.plan = DumpPlan(plan);
    codes.input = {};  // the packed file holds no graph
    return PackedNetworkBytes(codes);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kData) throw;
    return 0;  // a tensor of a type that the file does not have: `export` says which
  }
}

void StageChain::StateCalibrationSeed(Plan& plan) const {
  if (!plan.calibration) return;
  plan.calibration->seed.reset();
  if (recipe_.CalibrationSeed() != recipe_.seed) plan.calibration->seed = recipe_.CalibrationSeed();
}

QuantizedNetwork StageChain::KeepCodes(const Plan& plan, const CorrectionMethod& correction,
                                       const AppliedPlan& applied) {
  QuantizedNetwork codes = DescribeCodes(Model(), applied.weights);  // quantized.pt holds the rest
  Plan stated = plan;
  SetCorrection(stated, correction);
  codes.made_from = CodesKey(stated);
  codes.input = {.shape = Model().input_shape, .type = Model().input_type};
  return codes;
}

std::vector<CorrectionCandidate> StageChain::VerifyInFolder(Plan& plan, bool edited) {
  StateCalibrationSeed(plan);
  const auto place = PlaceOf(plan, edited), network = place + "/" + kNetworkFile, codes = place + "/" + kCodesFile;
  plan.verified.reset();
  plan.learned.reset();
  auto apply = Ensure("apply", ApplyInput(plan), {codes, network}, [&]() -> StageRecord {
    WritePlan(plan, place, edited);
    auto& applied = Quantized(BitsOf(plan), ChoicesOf(plan));
    const auto correction = Correct(applied, BitsOf(plan));
    RestoreChangedByForward(Model(), applied.module);
    folder_.Write(codes, PackNetwork(KeepCodes(plan, correction.chosen, applied)));
    folder_.Write(network, [&](const std::filesystem::path& file) { SaveModule(applied.module, file); });
    const auto content = ModelHash(applied.module);
    quantized_.reset();  // it is corrected now; whoever wants plain weights quantizes again
    return {.input = {}, .content = content, .facts = FactsOf(correction, CalibrationAccuracy())};
  });
  PlaceNetwork(apply, place);
  const auto correction = CorrectionOf(apply.facts);
  calibration_accuracy_ = CalibrationAccuracyOf(apply.facts);
  SetCorrection(plan, correction.chosen);
  StateLearned(plan, correction);
  QuantizedNetwork stored = LoadQuantizedNetwork(folder_.File(codes));
  SetStoredBytes(plan, stored.payload_bytes());
  // Whoever asks for the corrections that "auto" chose gets the same network.
  if (const auto chosen = ApplyInput(plan); chosen != apply.input && !folder_.Find("apply", chosen)) {
    auto record = apply;
    record.input = chosen;
    record.facts = FactsOf(Correction{correction.chosen, {}, correction.learned}, calibration_accuracy_);
    folder_.Complete("apply", record, apply.files);
  }
  const auto module = LoadModule(folder_.File(network));
  const auto verify = Ensure("verify", VerifyInput(apply, plan), {}, [&]() -> StageRecord {
    WritePlan(plan, place, edited);
    return {.input = {}, .content = {}, .facts = FactsOf(MeasurePlan(plan, module))};
  });
  plan.verified = VerificationOf(verify.facts);
  WritePlan(plan, place, edited);
  plan = LoadPlan(folder_.File("plan.yaml"));
  packed_bytes_ = PackedBytesWith(std::move(stored), module, plan);
  return correction.candidates;
}

StageChain::MadeNetwork StageChain::KeptOrMade(const Plan& plan) {
  if (const auto kept = folder_.Find("apply", ApplyInput(plan))) {
    const auto file = [&](const std::string& name) {
      const auto named = [&](const std::string& one) { return one.ends_with(name); };
      const auto found = std::find_if(kept->files.begin(), kept->files.end(), named);
      return found == kept->files.end() ? std::filesystem::path() : folder_.File(*found);
    };
    if (const auto network = file(kNetworkFile), codes = file(kCodesFile); !network.empty() && !codes.empty()) {
      calibration_accuracy_ = CalibrationAccuracyOf(kept->facts);
      return {LoadModule(network), LoadQuantizedNetwork(codes), CorrectionOf(kept->facts)};
    }
  }
  auto applied = Quantized(BitsOf(plan), ChoicesOf(plan));
  quantized_.reset();
  auto correction = Correct(applied, BitsOf(plan));
  calibration_accuracy_ = CalibrationAccuracy();
  return {applied.module, KeepCodes(plan, correction.chosen, applied), std::move(correction)};
}

std::vector<CorrectionCandidate> StageChain::VerifyInMemory(Plan& plan) {
  StateCalibrationSeed(plan);
  auto [module, codes, correction] = KeptOrMade(plan);
  SetCorrection(plan, correction.chosen);
  StateLearned(plan, correction);
  SetStoredBytes(plan, codes.payload_bytes());
  plan.verified = MeasurePlan(plan, module);
  packed_bytes_ = PackedBytesWith(std::move(codes), module, plan);
  return correction.candidates;
}

}  // namespace bitplan::pipeline
