#include <fmt/core.h>

#include <algorithm>

#include "bitplan/core/counted.h"
#include "cli/render.h"
#include "cli/render_parts.h"
#include "cli/table.h"

namespace bitplan::cli {

std::string Text(const pipeline::ModelReport& report) {
  Table table({">epoch", ">loss"});
  for (std::size_t epoch = 0; epoch < report.epoch_loss.size(); ++epoch) {
    table.Row({std::to_string(epoch + 1), fmt::format("{:.5f}", report.epoch_loss[epoch])});
  }
  return table.Render() + "\n" + StagesText(report.stages) +
         fmt::format("model              {}, {}\n", report.model_name, report.model_file.string());
}

std::string Text(const pipeline::PosteriorReport& report) {
  Table table({"layer", ">weights", ">prior sigma", ">median sigma"});
  for (const auto& layer : report.layers) {
    table.Row({layer.name, Grouped(layer.weights), fmt::format("{:.4g}", layer.prior_sigma),
               fmt::format("{:.4g}", layer.median_sigma)});
  }
  return table.Render() + "\n" + StagesText(report.stages) +
         fmt::format("posterior          {} of {}, {}\n", report.estimator, Counted(report.data_size, "image"),
                     report.posterior_file.string());
}

std::string Text(const pipeline::InspectReport& report) {
  Table table({"layer", "kind", "shape", ">weights", ">MACs", ">uses"});
  int convolutions = 0, recurrent = 0, embeddings = 0;
  for (const auto& layer : report.layers) {
    convolutions += layer.kind.starts_with("conv") ? 1 : 0;
    recurrent += layer.kind == "lstm" || layer.kind == "gru" || layer.kind == "rnn" ? 1 : 0;
    embeddings += layer.kind == "embedding" ? 1 : 0;
    table.Row({layer.name, layer.kind, ShapeText(layer.shape), Grouped(layer.weights), Grouped(layer.macs),
               std::to_string(layer.uses)});
  }
  table.Rule();
  table.Row({"total", "", "", Grouped(report.weights), Grouped(report.macs), ""});
  auto text = table.Render() + "\n";
  if (!report.left_in_float.empty()) {
    Table floats({"left in float", "shape", "because"});
    for (const auto& item : report.left_in_float) floats.Row({item.parameter, ShapeText(item.shape), item.reason});
    text += floats.Render() + "\n";
  }
  text += fmt::format("model              {}, one input {}\n", report.name, ShapeText(report.input_shape));
  text += fmt::format("layers             {}, {} linear, {}{}{}\n", Counted(convolutions, "convolution"),
                      report.layers.size() - static_cast<std::size_t>(convolutions + recurrent + embeddings),
                      recurrent > 0 ? fmt::format("{} of recurrent operations, ", recurrent) : "",
                      embeddings > 0 ? Counted(embeddings, "embedding") + ", " : "",
                      Counted(report.batch_norms, "batch norm"));
  text += fmt::format(
      "left in float      {:.2g} % of all weights, {}\n",
      100.0 * static_cast<double>(report.float_weights) / static_cast<double>(report.weights + report.float_weights),
      Grouped(report.float_weights));
  text += fmt::format("whole network      {} in float\n", Counted(report.bytes, "byte"));
  text += fmt::format("peak activations   {} of one input, in float\n", Counted(report.activation_bytes, "byte"));
  if (!report.note.empty()) text += fmt::format("note               {}\n", report.note);
  return text + fmt::format("sha256             {}\n", report.sha256);
}

std::string Text(const pipeline::ExportReport& report) {
  return fmt::format("plan               {}\n", report.plan_file.string()) +
         fmt::format("file               {}{}, {}\n", report.file.string(),
                     report.second_file.empty() ? "" : " and " + report.second_file.string(),
                     Counted(report.bytes, "byte")) +
         fmt::format("the plan packed    {} of planned layers, {} in float\n", Counted(report.stored_bytes, "byte"),
                     Counted(report.float_bytes, "byte"));
}

std::string Text(const pipeline::ListReport& report) {
  const auto points = [](const PairedComparison& drop) {
    return fmt::format("{:.2f} [{:.2f}, {:.2f}]", 100.0 * drop.drop + 0.0, 100.0 * drop.ci_low + 0.0,
                       100.0 * drop.ci_high + 0.0);
  };
  const auto score = [](const Verification& verified) {
    if (verified.task.empty()) return fmt::format("{:.2f} %", 100.0 * verified.quantized.accuracy);
    return fmt::format("{} {}", FindFigureKind(verified.score()).title, FigureText(verified.quantized.figures.front()));
  };
  const bool second = std::any_of(report.plans.begin(), report.plans.end(), [](const auto& listed) {
    return listed.plan.verified && listed.plan.verified->float_corrected;
  });
  std::vector<std::string> columns = {"budget",    "allocator",     ">bits", ">bytes",
                                      ">accuracy", ">drop, points", "",      "plan"};
  if (second) columns.insert(columns.begin() + 6, ">drop, corrected");
  Table table(columns);
  std::string models;
  for (const auto& [plan, plan_file, quantized_file, newest] : report.plans) {
    const auto model = fmt::format("{}, sha256 {}", plan.model.name, plan.model.sha256.substr(0, 12));
    if (model != models && !models.empty()) table.Rule();
    models = model;
    const auto& verified = plan.verified;
    std::vector<std::string> row = {BudgetText(plan.budget),
                                    plan.allocator,
                                    fmt::format("{:.3f}", plan.achieved.average_bits),
                                    Grouped(plan.achieved.stored_bytes),
                                    verified ? score(*verified) : "not measured",
                                    verified ? points(verified->accuracy_drop) : ""};
    if (second) {
      row.push_back(verified && verified->float_corrected ? points(verified->float_corrected->accuracy_drop) : "");
    }
    row.insert(row.end(), {newest ? "newest" : "", plan_file.string()});
    table.Row(row);
  }
  auto text = report.plans.empty() ? std::string() : table.Render() + "\n";
  text += fmt::format("folder             {}, {}\n", report.folder.string(), Counted(std::ssize(report.plans), "plan"));
  for (const auto& line : report.unreadable) text += fmt::format("no plan            {}\n", line);
  if (second) text += "drop, corrected    from the float network with the plan's correction, where that changes it\n";
  text += NotesText(report.notes);
  if (!report.plans.empty()) {
    text += "to delete one      remove its folder; what lies beside plan.yaml there is its network, quantized.pt\n";
  }
  return text;
}

std::string Text(const pipeline::RankReport& report) {
  if (!report.near.empty()) {
    std::vector<std::string> head = {"metric"};
    for (const auto& near : report.near) head.push_back(fmt::format(">{:g} bits", near.budget));
    head.emplace_back(">seconds");
    Table table(head);
    for (std::size_t r = 0; r < report.near.front().rows.size(); ++r) {
      const auto& row = report.near.front().rows[r];
      std::vector<std::string> cells = {row.metric};
      for (const auto& near : report.near) cells.push_back(fmt::format("{:.3f}", near.rows[r].spearman_loss));
      cells.push_back(row.seconds > 0.0 ? fmt::format("{:.1f}", row.seconds) : "saved");
      table.Row(cells);
    }
    return table.Render() +
           fmt::format(
               "\n{}: {} within 5 % of each; Spearman's correlation of the predicted rise and the measured one "
               "of the deployed plan on calibration images\n",
               report.model, Counted(std::ssize(report.near.front().bits), "plan")) +
           NotesText(report.notes);
  }
  Table table({"metric", ">rank corr., KL", ">rank corr., loss", ">seconds"});
  for (const auto& row : report.rows) {
    table.Row({row.metric, fmt::format("{:.4f}", row.spearman_divergence), fmt::format("{:.4f}", row.spearman_loss),
               row.seconds > 0.0 ? fmt::format("{:.1f}", row.seconds) : "saved"});
  }
  return table.Render() +
         fmt::format("\n{}: {}{} of {} drawn; Spearman's correlation of predicted and measured rise\n", report.model,
                     Counted(std::ssize(report.bits), "random plan"),
                     report.activation_bits.empty() ? "" : " of weights and activations", report.drawn) +
         NotesText(report.notes);
}

std::string Text(const pipeline::CurveReport& report) {
  Table table({">budget", ">average bits", ">bytes", ">predicted rise", ">shadow price", ">gap", "bits"});
  for (const auto& point : report.points) {
    std::string bits;
    for (const int width : point.bits) {
      if (!bits.empty()) bits += ' ';
      bits += width > 8 ? "float" : std::to_string(width);
    }
    const double gap = point.achieved.optimality_gap;
    table.Row({fmt::format("{:.3f}", point.budget), fmt::format("{:.3f}", point.achieved.average_bits),
               Grouped(point.achieved.stored_bytes), fmt::format("{:.4g}", point.achieved.predicted_loss_rise),
               point.shadow_price > 0.0 ? fmt::format("{:.3g}", point.shadow_price) : "",
               gap < 0.0 ? "" : fmt::format("{:.2g}", gap), bits});
  }
  return table.Render() +
         fmt::format("\n{}: {} by {} in {:.1f} ms; rises in nats per sample\n", report.model,
                     Counted(std::ssize(report.points), "budget"), report.allocator, report.milliseconds) +
         NotesText(report.notes) + StagesText(report.stages);
}

}  // namespace bitplan::cli
