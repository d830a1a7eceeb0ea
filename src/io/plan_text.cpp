// A plan as YAML; src/io/plan.cpp reads it.
#include "bitplan/io/plan.h"

#include <fmt/format.h>

#include "io/plan_keys.h"
#include "io/yaml_source.h"
#include "io/yaml_text.h"

namespace bitplan {
namespace {

std::string DumpMetrics(const Metrics& metrics) {
  if (!metrics.figures.empty()) {
    std::string text;
    for (const auto& [name, value] : metrics.figures) {
      text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", name, FormatNumber(value));
    }
    return "{" + text + "}";
  }
  return fmt::format("{{accuracy: {}, nll: {}, brier: {}, ece: {}}}", FormatNumber(metrics.accuracy),
                     FormatNumber(metrics.nll), FormatNumber(metrics.brier), FormatNumber(metrics.ece));
}

std::string DumpPaired(const PairedComparison& drop) {
  return fmt::format("{{value: {}, ci95: [{}, {}], mcnemar_p: {}}}", FormatNumber(drop.drop), FormatNumber(drop.ci_low),
                     FormatNumber(drop.ci_high), FormatNumber(drop.mcnemar_p));
}

// The drop of another task than classification.
std::string DumpDrop(const Verification& verified, const PairedComparison& drop) {
  return fmt::format("{{figure: {}, value: {}, ci95: [{}, {}]}}", verified.score(), FormatNumber(drop.drop),
                     FormatNumber(drop.ci_low), FormatNumber(drop.ci_high));
}

std::string DumpVerification(const Verification& verified) {
  const auto& corrected = verified.float_corrected;
  std::string text = "verified:\n";
  if (!verified.task.empty()) text += fmt::format("  task: {}\n", verified.task);
  text += fmt::format("  data: {}\n  samples: {}\n  float:     {}\n", FormatText(verified.data), verified.samples,
                      DumpMetrics(verified.float_model));
  if (corrected) text += fmt::format("  float_corrected: {}\n", DumpMetrics(corrected->metrics));
  if (!verified.task.empty()) {
    text += fmt::format("  quantized: {}\n  drop: {}\n", DumpMetrics(verified.quantized),
                        DumpDrop(verified, verified.accuracy_drop));
    if (corrected) text += fmt::format("  drop_corrected: {}\n", DumpDrop(verified, corrected->accuracy_drop));
    return text;
  }
  text += fmt::format("  quantized: {}\n  accuracy_drop: {}\n", DumpMetrics(verified.quantized),
                      DumpPaired(verified.accuracy_drop));
  if (corrected) text += fmt::format("  accuracy_drop_corrected: {}\n", DumpPaired(corrected->accuracy_drop));
  return text;
}

std::string DumpBudget(const Budget& budget) {
  std::vector<std::string> limits;
  for (const Limit& limit : budget.limits) limits.push_back(LimitName(limit) + ": " + FormatLimitValue(limit));
  return fmt::format("budget: {{{}}}\n", fmt::join(limits, ", "));
}

std::string DumpAchieved(const PlanAchieved& achieved, const std::vector<Limit>& others) {
  std::string text = fmt::format(
      "achieved: {{average_bits: {}, average_bits_with_overhead: {}, stored_bytes: {}, compression: {},\n"
      "           predicted_loss_rise: {}",
      FormatNumber(achieved.average_bits), FormatNumber(achieved.average_bits_with_overhead), achieved.stored_bytes,
      FormatNumber(achieved.compression), FormatNumber(achieved.predicted_loss_rise));
  if (achieved.network_bytes > 0) {
    text += fmt::format(", network_bytes: {}, network_compression: {}", achieved.network_bytes,
                        FormatNumber(achieved.network_compression));
  }
  if (achieved.optimality_gap >= 0.0) text += ", optimality_gap: " + FormatNumber(achieved.optimality_gap);
  for (const Limit& spent : others) text += fmt::format(", {}: {}", LimitName(spent), FormatLimitValue(spent));
  return text + "}\n";
}

std::string DumpLeftInFloat(const LeftInFloat& left) {
  std::string text = fmt::format("left_in_float:\n  weights: {}\n  share: {}\n  tensors:{}\n", left.weights,
                                 FormatNumber(left.share), left.tensors.empty() ? " []" : "");
  for (const FloatWeights& tensor : left.tensors) {
    text += fmt::format("    - {{name: {}, shape: [{}], reason: {}}}\n", FormatText(tensor.name),
                        fmt::join(tensor.shape, ", "), FormatText(tensor.reason));
  }
  return text;
}

std::string DumpLearned(const PlanLearned& learned) {
  return fmt::format(
      "learned_rounding: {{images: {}, divergence_before: {}, divergence_after: {}, codes_moved: {}, kept: {}}}\n",
      learned.images, FormatNumber(learned.before), FormatNumber(learned.after), FormatNumber(learned.moved),
      learned.kept);
}

std::string DumpCalibration(const PlanCalibration& calibration) {
  return fmt::format("calibration: {{images: {}, source: {}{}}}\n", calibration.images, FormatText(calibration.source),
                     calibration.seed ? fmt::format(", seed: {}", *calibration.seed) : "");
}

std::string DumpExportable(const std::string& format, const PlanExportable& exportable) {
  std::string text =
      fmt::format("exportable: {{format: {}, bits: [{}]", FormatText(format), fmt::join(exportable.bits, ", "));
  if (!exportable.left_out.empty()) text += fmt::format(", left_out: [{}]", fmt::join(exportable.left_out, ", "));
  text += ", holds: " + FormatQuoted(exportable.holds);
  if (exportable.predicted_loss_rise && exportable.unrestricted_loss_rise) {
    text +=
        fmt::format(",\n             predicted_loss_rise: {}, unrestricted_loss_rise: {}",
                    FormatNumber(*exportable.predicted_loss_rise), FormatNumber(*exportable.unrestricted_loss_rise));
  }
  return text + "}\n";
}

std::string DumpGuard(const PlanGuard& guard) {
  return fmt::format("guard: {{data: {}, plan_nll: {}, uniform_nll: {}{}}}\n", FormatText(guard.data),
                     FormatNumber(guard.plan_nll), FormatNumber(guard.uniform_nll),
                     guard.replaced.empty() ? "" : ", replaced: " + FormatText(guard.replaced));
}

std::string DumpDropBound(const PlanDrop& drop) {
  return fmt::format(
      "drop: {{at_most: {}, smallest: {}, data: {}, images: {}, value: {}, upper95: {}, plans: {},\n       sha256: "
      "{}}}\n",
      FormatNumber(drop.at_most), FormatText(drop.smallest), FormatText(drop.data), drop.images,
      FormatNumber(drop.value), FormatNumber(drop.upper95), drop.plans, FormatQuoted(drop.sha256));
}

std::string DumpAllocator(const Plan& plan) {
  std::vector<std::string> options;
  for (const auto& [key, value] : plan.allocator_options) {
    options.push_back(FormatText(key) + ": " + (IsNumber(value) ? value : FormatText(value)));
  }
  return fmt::format("allocator: {{name: {}, options: {{{}}}, seed: {}}}\n", FormatText(plan.allocator),
                     fmt::join(options, ", "), plan.seed);
}

}  // namespace

std::string DumpPlan(const Plan& plan) {
  std::string text = fmt::format("bitplan: {}\n", kPlanVersion);
  text += fmt::format("model: {{name: {}, sha256: {}, weights: {}{}}}\n", FormatText(plan.model.name),
                      FormatQuoted(plan.model.sha256), plan.model.weights,
                      plan.model.note.empty() ? "" : ", note: " + FormatQuoted(plan.model.note));
  text += DumpAllocator(plan);
  if (!plan.posterior_estimator.empty()) {
    text += fmt::format("posterior: {{estimator: {}, sha256: {}}}\n", FormatText(plan.posterior_estimator),
                        FormatQuoted(plan.posterior_sha256));
  }
  const QuantizerOptions& quantizer = plan.quantizer;
  const bool rounds_activations = RoundsActivations(plan);
  text += fmt::format(
      "quantizer: {{scheme: {}, granularity: {}, range: {}, rounding: {}{}, batch_norm: {}, output_correction: "
      "{}{}{}{}{}}}\n",
      FormatText(quantizer.scheme), FormatText(quantizer.granularity), FormatText(quantizer.range),
      FormatText(quantizer.rounding),
      quantizer.centring == "auto" ? "" : ", centring: " + FormatText(quantizer.centring),
      FormatText(quantizer.batch_norm), FormatText(quantizer.output_correction),
      rounds_activations ? ", activation_range: " + FormatText(quantizer.activation_range) : "",
      rounds_activations && quantizer.range_sweeps > 0 ? fmt::format(", range_sweeps: {}", quantizer.range_sweeps) : "",
      rounds_activations && quantizer.activation_sums == "rounded" ? ", activation_sums: rounded" : "",
      quantizer.learned_steps == 0
          ? ""
          : fmt::format(", learned_steps: {}, learned_samples: {}, learned_rate: {}", quantizer.learned_steps,
                        quantizer.learned_samples, quantizer.learned_rate));
  text += DumpBudget(plan.budget);
  text += DumpAchieved(plan.achieved, SpentOnOthers(plan));
  text += "layers:\n";
  for (const PlanLayer& layer : plan.layers) {
    text += fmt::format("  - {{name: {}, kind: {}, shape: [{}], macs: {}, bits: {}, grid: {}", FormatText(layer.name),
                        FormatText(layer.kind), fmt::join(layer.shape, ", "), layer.macs, layer.bits,
                        FormatText(layer.grid));
    if (layer.activation_bits <= 16) text += fmt::format(", activation_bits: {}", layer.activation_bits);
    if (layer.range != RangeUnlessStated(quantizer)) text += ", range: " + FormatText(layer.range);
    if (layer.confidence >= 0.0) text += ", confidence: " + FormatNumber(layer.confidence);
    text += "}\n";
  }
  if (plan.left_in_float) text += DumpLeftInFloat(*plan.left_in_float);
  if (plan.transferred) {
    text += fmt::format("transferred: {{model: {}, sha256: {}}}\n", FormatText(plan.transferred->model),
                        FormatQuoted(plan.transferred->sha256));
  }
  if (plan.exportable) text += DumpExportable(plan.quantizer.exportable, *plan.exportable);
  if (plan.calibration) text += DumpCalibration(*plan.calibration);
  if (plan.guard) text += DumpGuard(*plan.guard);
  if (plan.drop) text += DumpDropBound(*plan.drop);
  if (plan.learned) text += DumpLearned(*plan.learned);
  if (plan.verified) text += DumpVerification(*plan.verified);
  const PlanProvenance& provenance = plan.provenance;
  text += fmt::format("provenance: {{bitplan: {}, libtorch: {}, recipe_sha256: {}}}\n", FormatText(provenance.bitplan),
                      FormatText(provenance.libtorch), FormatQuoted(provenance.recipe_sha256));
  return text;
}

}  // namespace bitplan
