#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/counted.h"
#include "cli/render.h"
#include "cli/render_parts.h"
#include "cli/table.h"

namespace bitplan::cli {
namespace {

// "91.20 %  (mean IoU 71.03 %, NLL 0.2301)".
std::string FiguresText(const Metrics& metrics) {
  std::string text, others;
  for (const Figure& figure : metrics.figures) {
    if (text.empty()) {
      text = FigureText(figure);
      continue;
    }
    others += fmt::format("{}{} {}", others.empty() ? "" : ", ", FindFigureKind(figure.name).title, FigureText(figure));
  }
  return fmt::format("{}  ({})", text, others);
}

// Of the score: "0.35 points" of a share, "0.0012" of another figure.
std::string DropText(const Verification& verified, const PairedComparison& drop) {
  const bool share = FindFigureKind(verified.score()).share;
  const double scale = share ? 100.0 : 1.0;
  return fmt::format("{:.{}f}{}, 95 % interval [{:.{}f}, {:.{}f}] over images", scale * drop.drop, share ? 2 : 4,
                     share ? " points" : "", scale * drop.ci_low, share ? 2 : 4, scale * drop.ci_high, share ? 2 : 4);
}

std::string TaskText(const Verification& verified) {
  const auto& corrected = verified.float_corrected;
  const auto row = [](const std::string& name, const std::string& text) {
    return fmt::format("{:<18} {}\n", name, text);
  };
  const std::string score = FindFigureKind(verified.score()).title;
  return row("measured on",
             fmt::format("{}, {}; task {}", verified.data, Counted(verified.samples, "sample"), verified.task)) +
         row("float " + score, FiguresText(verified.float_model)) +
         (corrected ? row("float, corrected", FiguresText(corrected->metrics)) : std::string()) +
         row("quantized " + score, FiguresText(verified.quantized)) +
         row("drop", DropText(verified, verified.accuracy_drop)) +
         (corrected ? row("drop, corrected", DropText(verified, corrected->accuracy_drop)) : std::string());
}

std::string VerifiedText(const Verification& verified) {
  if (!verified.task.empty()) return TaskText(verified);
  const auto row = [](const char* name, const Metrics& m) {
    return fmt::format("{:<18} {:.2f} %  (NLL {:.4f}, Brier {:.4f}, ECE {:.4f})\n", name, 100 * m.accuracy, m.nll,
                       m.brier, m.ece);
  };
  const auto lost = [](const char* name, const PairedComparison& drop) {
    return fmt::format("{:<18} {:.2f} points, 95 % interval [{:.2f}, {:.2f}], McNemar p = {:.3g}\n", name,
                       100 * drop.drop, 100 * drop.ci_low, 100 * drop.ci_high, drop.mcnemar_p);
  };
  const auto& corrected = verified.float_corrected;
  return fmt::format("measured on        {}, {}\n", verified.data, Counted(verified.samples, "sample")) +
         row("float accuracy", verified.float_model) +
         (corrected ? row("float, corrected", corrected->metrics) : std::string()) +
         row("quantized accuracy", verified.quantized) + lost("drop", verified.accuracy_drop) +
         (corrected ? lost("drop, corrected", corrected->accuracy_drop) : std::string());
}

std::string AgainstText(const Verification& against, const std::string& file) {
  const auto& drop = against.accuracy_drop;
  if (!against.task.empty()) {
    return fmt::format("against            {}: {}; this plan less: {}\n", file, FiguresText(against.float_model),
                       DropText(against, drop));
  }
  const double sign = drop.drop > 0.0 ? 100.0 : -100.0;
  const auto [low, high] = std::minmax({sign * drop.ci_low, sign * drop.ci_high});
  return fmt::format(
      "against            {}: {:.2f} % (NLL {:.4f}), this plan is {:.2f} points {}, 95 % interval [{:.2f}, {:.2f}], "
      "McNemar p = {:.3g}{}\n",
      file, 100 * against.float_model.accuracy, against.float_model.nll, sign * drop.drop + 0.0,
      drop.drop > 0.0 ? "worse" : "better", low, high, drop.mcnemar_p, low <= 0.0 && high >= 0.0 ? ": a tie" : "");
}

std::string LearnedText(const PlanLearned& learned, const std::string& sample) {
  return fmt::format(
      "learned rounding   divergence {:.4g} to {:.4g} nats on {}; {}\n", learned.before, learned.after,
      Counted(learned.images, sample),
      learned.kept ? fmt::format("{:.2f} % of the codes moved", 100.0 * learned.moved) : "left as it was");
}

std::string CalibrationText(const PlanCalibration& calibration, const pipeline::RunReport& report) {
  const std::string images = Counted(calibration.images, report.sample), plural = report.sample + "s";
  const auto& source = calibration.source;
  std::string text =
      source == "split-off" ? images + " split off before training"
      : source == "training"
          ? Grouped(calibration.images) + " of the training " + plural + "; a model from a file has probably seen them"
      : source == "file" ? images + " of data.calibration_images"
                         : fmt::format("{} of the test {}, not measured on them", Grouped(calibration.images), plural);
  if (report.calibration_asked > 0) {
    text += fmt::format("; a fifth, for data.calibration {} is more than half", Grouped(report.calibration_asked));
  }
  return fmt::format("calibration        {}\n", text);
}

// "0 cat, 1 dog, ..., 999 zebra", as many of the first as a line takes.
std::string ClassesText(const std::vector<std::string>& names) {
  constexpr std::size_t kWidth = 90;
  if (names.empty()) return "";
  std::string text;
  std::size_t shown = 0;
  for (; shown + 1 < names.size(); ++shown) {
    const std::string one = fmt::format("{} {}, ", shown, names[shown]);
    if (shown > 0 && text.size() + one.size() > kWidth) break;
    text += one;
  }
  if (shown + 1 < names.size()) text += "..., ";
  return fmt::format("classes            {}{} {}\n", text, names.size() - 1, names.back());
}

std::string GuardText(const PlanGuard& guard) {
  return fmt::format("guard              {}: NLL {:.4f}, one width for all {:.4f}; {}\n", guard.data, guard.plan_nll,
                     guard.uniform_nll,
                     guard.replaced.empty() ? "the plan stays" : "that of " + guard.replaced + " is replaced");
}

std::string DropBoundText(const PlanDrop& drop) {
  return fmt::format(
      "drop bound         {:g} points, 95 % sure: {:.2f}, at most {:.2f}, on {} of {} without a part in "
      "any choice; smallest {} of {}\n",
      100.0 * drop.at_most, 100.0 * drop.value + 0.0, 100.0 * drop.upper95, Counted(drop.images, "image"), drop.data,
      FindResource(drop.smallest).words, Counted(drop.plans, "measured plan"));
}

// A method that is defined by a table of its own counts in it.
std::string RiseScale(const std::string& allocator) {
  const auto& all = Allocators();
  const auto own = [&](const Allocator& one) { return one.name == allocator && *one.metric != '\0'; };
  return std::any_of(all.begin(), all.end(), own) ? fmt::format("on the scale of {}", allocator) : "nats per sample";
}

// `packed`: bytes of the whole file of `export --to packed`, 0 where there is no network yet.
std::string SizesText(const Plan& plan, std::int64_t packed) {
  const auto line = [](const char* what, std::int64_t bytes, std::int64_t in_float, const std::string& file) {
    return fmt::format("{:<18} {} of {} ({:.1f} times smaller{})\n", what, Counted(bytes, "byte"), Grouped(in_float),
                       static_cast<double>(in_float) / static_cast<double>(bytes), file);
  };
  const auto& achieved = plan.achieved;
  std::int64_t planned = 0;  // bytes in float32
  for (const PlanLayer& layer : plan.layers) {
    std::int64_t weights = 1;
    for (const std::int64_t size : layer.shape) weights *= size;
    if (layer.bits <= 8) planned += 4 * weights;
  }
  std::string text;
  if (achieved.stored_bytes > 0) text += line("planned layers", achieved.stored_bytes, planned, "");
  if (achieved.network_bytes > 0) {
    text += line("whole network", achieved.network_bytes, achieved.network_bytes - achieved.stored_bytes + planned,
                 packed > 0 ? fmt::format("; packed file {}", Grouped(packed)) : "");
  }
  return text;
}

// What the totals leave out, and whether they keep the budget.
std::string OutsideText(const Plan& plan) {
  std::string text;
  if (plan.left_in_float && plan.left_in_float->weights > 0) text += LeftInFloatText(*plan.left_in_float);
  for (const Limit& limit : plan.budget.limits) {
    const double spent = Spent(plan, limit.resource);
    if (spent <= limit.value + (limit.resource.get().per_weight ? 1e-6 : 0.0)) continue;
    text += fmt::format("over budget        {} {:g} of {:g}: not as the allocator left it\n", LimitName(limit), spent,
                        limit.value);
  }
  return text;
}

std::string SpentText(const Limit& spent) {
  const Resource& resource = spent.resource;
  switch (resource.kind) {
    case ResourceKind::kPeak:
      return fmt::format("{:<18} {}\n", resource.words, Counted(static_cast<std::int64_t>(spent.value), "byte"));
    case ResourceKind::kTimed:
      return fmt::format("{:<18} {:.1f} {}\n", resource.name, spent.value, resource.unit);
    case ResourceKind::kCounted:
      break;
  }
  return fmt::format("{:<18} {:g}\n", resource.words, spent.value);
}

// What the plan keeps to for a format of export, and what that costs.
std::string ExportableText(const Plan& plan, const std::string& scale) {
  if (!plan.exportable) return "";
  const PlanExportable& exportable = *plan.exportable;
  std::string text = fmt::format(
      "exportable         {}: {} bits; {}{}\n", plan.quantizer.exportable, fmt::join(exportable.bits, ", "),
      exportable.holds,
      exportable.left_out.empty() ? "" : fmt::format("; left out {} bits", fmt::join(exportable.left_out, ", ")));
  if (exportable.predicted_loss_rise && exportable.unrestricted_loss_rise) {
    const double with = *exportable.predicted_loss_rise, without = *exportable.unrestricted_loss_rise;
    text += fmt::format("restriction        costs {:.4g} {}: predicted rise {:.4g}, without it {:.4g}\n",
                        with - without, scale, with, without);
  }
  std::map<std::string, std::vector<std::string>> not_held;  // by the reason
  for (const FloatWeights& tensor : plan.left_in_float ? plan.left_in_float->tensors : std::vector<FloatWeights>()) {
    const bool layer = std::any_of(plan.layers.begin(), plan.layers.end(),
                                   [&](const PlanLayer& one) { return one.name == tensor.name; });
    if (layer && tensor.reason != "left alone") not_held[tensor.reason].push_back(tensor.name);
  }
  for (const auto& [reason, layers] : not_held) {
    text += fmt::format("not held           {}: {}\n", fmt::join(layers, ", "), reason);
  }
  return text;
}

// Empty where all activations stay in float.
std::string ActivationsText(const Plan& plan) {
  std::map<int, std::int64_t> layers;  // by width
  for (const PlanLayer& layer : plan.layers) {
    if (layer.activation_bits <= 16) ++layers[layer.activation_bits];
  }
  std::vector<std::string> parts;
  for (const auto& [bits, count] : layers)
    parts.push_back(fmt::format("{} at the input of {}", Counted(bits, "bit"), Counted(count, "layer")));
  return parts.empty() ? "" : fmt::format("activations        {}\n", fmt::join(parts, ", "));
}

// A column for what only some plans have: widths of inputs where any is rounded, confidence where some is stated.
std::string LayersText(const Plan& plan) {
  const bool rounds = RoundsActivations(plan);
  const bool states = std::any_of(plan.layers.begin(), plan.layers.end(),
                                  [](const PlanLayer& layer) { return layer.confidence >= 0.0; });
  std::vector<std::string> columns = {"layer", "kind", "shape", ">weights", ">bits", "grid"};
  if (rounds) columns.emplace_back(">input bits");
  if (states) columns.emplace_back(">sure");
  Table table(columns);
  for (const auto& layer : plan.layers) {
    const bool excluded = layer.bits > 8;
    std::vector<std::string> row = {layer.name,
                                    layer.kind,
                                    ShapeText(layer.shape),
                                    Grouped(layer.weights()),
                                    excluded ? "float" : std::to_string(layer.bits),
                                    layer.bits == 0 || excluded ? "" : layer.grid};
    if (rounds) row.push_back(layer.activation_bits > 16 ? "float" : std::to_string(layer.activation_bits));
    if (states) {
      row.push_back(layer.confidence < 0.0 || excluded ? "" : fmt::format("{:.0f} %", 100.0 * layer.confidence));
    }
    table.Row(row);
  }
  return table.Render();
}

}  // namespace

std::string Text(const pipeline::RunReport& report) {
  constexpr double kRounding = 1e-12;  // nats; differences of sums below it are noise
  const auto& plan = report.plan;
  auto text = LayersText(plan) + "\n";
  const auto& achieved = plan.achieved;
  const std::string scale = RiseScale(plan.allocator);
  text += fmt::format("model              {}, {} in {}\n", plan.model.name, Counted(plan.model.weights, "weight"),
                      Counted(std::ssize(plan.layers), "layer"));
  if (!report.weights_file.empty()) text += fmt::format("weights            {}\n", report.weights_file);
  text += ClassesText(report.classes);
  text += ActivationsText(plan);
  if (plan.transferred) {
    text += fmt::format("widths from        {}, sha256 {}: other weights of the same layers\n", plan.transferred->model,
                        plan.transferred->sha256.substr(0, 12));
  }
  text += fmt::format("allocator          {}, budget {}\n", plan.allocator, BudgetText(plan.budget));
  text += ExportableText(plan, scale);
  if (report.allocate_ms > 0.0) text += fmt::format("allocation         {:.2f} ms\n", report.allocate_ms);
  if (!report.allocator_note.empty()) text += fmt::format("note               {}\n", report.allocator_note);
  for (std::size_t r = 0; r < std::min(report.shadow_prices.size(), plan.budget.limits.size()); ++r) {
    if (report.shadow_prices[r] <= 0.0) continue;
    text += fmt::format("shadow price       one more {} is worth {:.3g} {}\n",
                        plan.budget.limits[r].resource.get().one_more, report.shadow_prices[r], scale);
  }
  for (const auto& [pin, rise] : report.pins) {
    text += fmt::format("pin                {} at {} {}\n", pin.pattern, Counted(pin.bits, "bit"),
                        rise ? fmt::format("costs {:.3g} {}", std::abs(*rise) < kRounding ? 0.0 : *rise, scale)
                             : std::string("is what makes the budget possible"));
  }
  text += fmt::format("average bits       {:.3f} ({:.3f} with scales and bit widths)\n", achieved.average_bits,
                      achieved.average_bits_with_overhead);
  for (const Limit& spent : SpentOnOthers(plan)) text += SpentText(spent);
  if (plan.budget.limits.size() == 1) {  // of weights other lines say how much is spent
    const Resource& only = plan.budget.limits.front().resource;
    const bool stated = &only == &AverageBits() || &only == &StoredBytes() || only.kind != ResourceKind::kCounted;
    if (!stated) text += SpentText({only, Spent(plan, only)});
  }
  text += SizesText(plan, report.packed_bytes);
  text += OutsideText(plan);
  text += fmt::format("predicted rise     {:.4g} {}\n", achieved.predicted_loss_rise, scale);
  text += fmt::format("correction         batch norm {}, outputs {}\n", plan.quantizer.batch_norm,
                      plan.quantizer.output_correction);
  if (plan.calibration) text += CalibrationText(*plan.calibration, report);
  if (plan.guard) text += GuardText(*plan.guard);
  if (plan.drop) text += DropBoundText(*plan.drop);
  if (plan.learned) text += LearnedText(*plan.learned, report.sample);
  if (plan.verified) text += VerifiedText(*plan.verified);
  if (report.against) text += AgainstText(*report.against, report.against_file.string());
  text += NotesText(report.notes);
  text += StagesText(report.stages);
  if (!report.quantized_file.empty()) text += fmt::format("quantized model    {}\n", report.quantized_file.string());
  if (!report.page_file.empty()) text += fmt::format("report             {}\n", report.page_file.string());
  return text + fmt::format("plan               {}\n", report.plan_file.string());
}

}  // namespace bitplan::cli
