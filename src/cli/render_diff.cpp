// Two plans beside each other.
#include <fmt/format.h>

#include "bitplan/core/counted.h"
#include "bitplan/core/figures.h"
#include "cli/render.h"
#include "cli/render_parts.h"
#include "cli/table.h"

namespace bitplan::cli {
namespace {

using nlohmann::ordered_json;

constexpr int kWidestRounded = 8;

std::string WidthText(const std::optional<PlanLayer>& layer) {
  if (!layer) return "no such layer";
  if (layer->bits > kWidestRounded) return "float";
  return layer->bits == 0 ? "0" : fmt::format("{} {} {}", layer->bits, layer->grid, layer->range);
}

// "3.000 -> 2.425 (-0.575)"
std::string ChangeText(double first, double second, const char* format) {
  const std::string change = fmt::format(fmt::runtime(format), second - first);
  return fmt::format("{} -> {} ({}{})", fmt::format(fmt::runtime(format), first),
                     fmt::format(fmt::runtime(format), second), change.front() == '-' ? "" : "+", change);
}

// Empty where neither plan keeps to a format of export.
std::string ExportablesText(const Plan& first, const Plan& second) {
  const std::string &one = first.quantizer.exportable, &other = second.quantizer.exportable;
  if (one.empty() && other.empty()) return "";
  const auto name = [](const std::string& format) { return format.empty() ? "none" : format; };
  return fmt::format("exportable         {} -> {}\n", name(one), name(other));
}

std::string MeasuredText(const Verification& first, const Verification& second) {
  constexpr double kPercent = 100.0;
  const FigureKind& score = FindFigureKind(first.score());
  const double scale = score.share ? kPercent : 1.0;
  std::string text = fmt::format("{:<18} {}\n", std::string(score.title) + (score.share ? ", %" : ""),
                                 ChangeText(scale * first.quantized.accuracy, scale * second.quantized.accuracy,
                                            score.share ? "{:.2f}" : "{:.4f}"));
  text += fmt::format("NLL                {}\n", ChangeText(first.quantized.nll, second.quantized.nll, "{:.4f}"));
  return text;
}

ordered_json ChoiceJson(const std::optional<PlanLayer>& layer) {
  if (!layer) return nullptr;
  return {{"bits", layer->bits}, {"grid", layer->grid}, {"range", layer->range}, {"shape", layer->shape}};
}

ordered_json PlanJson(const Plan& plan, const std::filesystem::path& file) {
  const auto& achieved = plan.achieved;
  ordered_json json = {{"plan_file", file.string()},
                       {"model", plan.model.name},
                       {"model_sha256", plan.model.sha256},
                       {"allocator", plan.allocator},
                       {"exportable", plan.exportable ? ordered_json(plan.quantizer.exportable) : ordered_json()},
                       {"average_bits", achieved.average_bits},
                       {"stored_bytes", achieved.stored_bytes},
                       {"predicted_loss_rise", achieved.predicted_loss_rise},
                       {"verified", nullptr}};
  if (plan.verified) {
    const auto& quantized = plan.verified->quantized;
    json["verified"] = {{"data", plan.verified->data},
                        {"samples", plan.verified->samples},
                        {"accuracy", quantized.accuracy},
                        {"nll", quantized.nll}};
  }
  return json;
}

}  // namespace

std::string Text(const pipeline::DiffReport& report) {
  Table table({"layer", ">weights", "first", "second", ">bits moved"});
  for (const auto& [name, weights, first, second] : report.layers) {
    std::string moved;
    if (first && second && first->bits <= kWidestRounded && second->bits <= kWidestRounded) {
      const std::int64_t more = second->weights() * second->bits - first->weights() * first->bits;
      moved = fmt::format("{}{}", more > 0 ? "+" : "", Grouped(more));
    }
    table.Row({name, Grouped(weights), WidthText(first), WidthText(second), moved});
  }
  std::string text = report.layers.empty() ? "" : fmt::format("{}\n", table.Render());
  text += fmt::format("first              {}, {}\n", report.first_file.string(), report.first.allocator);
  text += fmt::format("second             {}, {}\n", report.second_file.string(), report.second.allocator);
  text += fmt::format("layers             {} {}, {} the same\n", std::ssize(report.layers),
                      report.layers.size() == 1 ? "differs" : "differ", report.same);
  text +=
      fmt::format("bits moved         {} taken, {} given\n", Grouped(report.bits_taken), Grouped(report.bits_given));
  text += ExportablesText(report.first, report.second);
  const auto &one = report.first.achieved, &other = report.second.achieved;
  text += fmt::format("average bits       {}\n", ChangeText(one.average_bits, other.average_bits, "{:.3f}"));
  text += fmt::format("planned layers     {} -> {} bytes\n", Grouped(one.stored_bytes), Grouped(other.stored_bytes));
  text += fmt::format("predicted rise     {} nats per sample\n",
                      ChangeText(one.predicted_loss_rise, other.predicted_loss_rise, "{:.4g}"));
  if (report.first.verified && report.second.verified) {
    text += MeasuredText(*report.first.verified, *report.second.verified);
    text += "paired interval    `bitplan verify RECIPE --plan SECOND --against FIRST`\n";
  }
  return text + NotesText(report.notes);
}

ordered_json Json(const pipeline::DiffReport& report) {
  ordered_json layers = ordered_json::array();
  for (const auto& [name, weights, first, second] : report.layers) {
    layers.push_back(
        {{"name", name}, {"weights", weights}, {"first", ChoiceJson(first)}, {"second", ChoiceJson(second)}});
  }
  const auto &one = report.first, &other = report.second;
  ordered_json change = {{"bits_taken", report.bits_taken},
                         {"bits_given", report.bits_given},
                         {"average_bits", other.achieved.average_bits - one.achieved.average_bits},
                         {"stored_bytes", other.achieved.stored_bytes - one.achieved.stored_bytes},
                         {"predicted_loss_rise", other.achieved.predicted_loss_rise - one.achieved.predicted_loss_rise},
                         {"accuracy", nullptr},
                         {"nll", nullptr}};
  if (one.verified && other.verified) {
    change["accuracy"] = other.verified->quantized.accuracy - one.verified->quantized.accuracy;
    change["nll"] = other.verified->quantized.nll - one.verified->quantized.nll;
  }
  return {{"first", PlanJson(one, report.first_file)},
          {"second", PlanJson(other, report.second_file)},
          {"layers", layers},
          {"same", report.same},
          {"change", change},
          {"notes", report.notes}};
}

}  // namespace bitplan::cli
