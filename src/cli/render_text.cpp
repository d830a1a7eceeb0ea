#include <fmt/core.h>
#include <algorithm>
#include <cmath>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/counted.h"
#include "cli/console.h"
#include "cli/render.h"
#include "cli/table.h"

namespace bitplan::cli {
namespace {

std::string StagesText(const std::vector<pipeline::StageStatus>& stages) {
  std::string text;
  for (const auto& stage : stages) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", stage.name,
                        stage.reused ? "unchanged" : Duration(stage.seconds));
  }
  return fmt::format("stages             {}\n", text);
}

std::string VerifiedText(const Verification& verified) {
  const auto row = [](const char* name, const Metrics& m) {
    return fmt::format("{:<18} {:.2f} %  (NLL {:.4f}, Brier {:.4f}, ECE {:.4f})\n", name, 100 * m.accuracy, m.nll,
                       m.brier, m.ece);
  };
  const auto& drop = verified.accuracy_drop;
  return fmt::format("measured on        {}, {}\n", verified.data, Counted(verified.samples, "sample")) +
         row("float accuracy", verified.float_model) + row("quantized accuracy", verified.quantized) +
         fmt::format("drop               {:.2f} points, 95 % interval [{:.2f}, {:.2f}], McNemar p = {:.3g}\n",
                     100 * drop.drop, 100 * drop.ci_low, 100 * drop.ci_high, drop.mcnemar_p);
}

std::string AgainstText(const Verification& against, const std::string& file) {
  const auto& drop = against.accuracy_drop;
  const double sign = drop.drop > 0.0 ? 100.0 : -100.0;
  const auto [low, high] = std::minmax({sign * drop.ci_low, sign * drop.ci_high});
  return fmt::format(
      "against            {}: {:.2f} % (NLL {:.4f}), this plan is {:.2f} points {}, 95 % interval [{:.2f}, {:.2f}], "
      "McNemar p = {:.3g}{}\n",
      file, 100 * against.float_model.accuracy, against.float_model.nll, sign * drop.drop + 0.0,
      drop.drop > 0.0 ? "worse" : "better", low, high, drop.mcnemar_p, low <= 0.0 && high >= 0.0 ? ": a tie" : "");
}

std::string CalibrationText(const PlanCalibration& calibration) {
  const std::string images = Grouped(calibration.images);
  const auto& source = calibration.source;
  return fmt::format("calibration        {}\n",
                     source == "split-off" ? images + " images split off before training"
                     : source == "training"
                         ? images + " of the training images; a model from a file has probably seen them"
                     : source == "file" ? images + " images of data.calibration_images"
                                        : images + " of the test images, not measured on them");
}

std::string GuardText(const PlanGuard& guard) {
  return fmt::format("guard              {}: NLL {:.4f}, one width for all {:.4f}; {}\n", guard.data, guard.plan_nll,
                     guard.uniform_nll,
                     guard.replaced.empty() ? "the plan stays" : "that of " + guard.replaced + " is replaced");
}

// A method that is defined by a table of its own counts in it.
std::string RiseScale(const std::string& allocator) {
  const auto& all = Allocators();
  const auto own = [&](const Allocator& one) { return one.name == allocator && *one.metric != '\0'; };
  return std::any_of(all.begin(), all.end(), own) ? fmt::format("on the scale of {}", allocator) : "nats per sample";
}

// Layers and tensors that stay in float for the same reason.
struct FloatGroup {
  std::string reason;
  std::vector<std::string> names;
  std::int64_t weights = 0;
};

// The share, then the groups, the heaviest first: "lstm.weight_hh_l0, lstm.weight_ih_l0 (used by aten::lstm); ...".
std::string LeftInFloatText(const LeftInFloat& left) {
  constexpr std::size_t kNamed = 3;
  std::vector<FloatGroup> groups;
  for (const auto& tensor : left.tensors) {
    const auto same = [&](const FloatGroup& group) { return group.reason == tensor.reason; };
    auto group = std::find_if(groups.begin(), groups.end(), same);
    if (group == groups.end()) group = groups.insert(group, {tensor.reason, {}, 0});
    group->names.push_back(tensor.name);
    group->weights += tensor.weights();
  }
  std::stable_sort(groups.begin(), groups.end(), [](auto& a, auto& b) { return a.weights > b.weights; });
  std::string text =
      fmt::format("left in float      {:.2g} % of all weights, {}", 100.0 * left.share, Grouped(left.weights));
  for (const auto& group : groups) {
    text += &group == groups.data() ? ": " : "; ";
    if (group.reason == "bias") {
      text += fmt::format("{} in {}", Grouped(group.weights),
                          group.names.size() == 1 ? "1 bias" : Grouped(std::ssize(group.names)) + " biases");
      continue;
    }
    if (group.reason == "batch norm") {
      text += fmt::format("{} of batch norms", Grouped(group.weights));
      continue;
    }
    for (std::size_t i = 0; i < std::min(kNamed, group.names.size()); ++i) {
      text += (i == 0 ? "" : ", ") + group.names[i];
    }
    if (group.names.size() > kNamed) text += fmt::format(" and {} more", group.names.size() - kNamed);
    text += fmt::format(" ({})", group.reason);
  }
  return text + "\n";
}

std::string SizesText(const Plan& plan) {
  const auto line = [](const char* what, std::int64_t bytes, std::int64_t in_float) {
    return fmt::format("{:<18} {} bytes of {} ({:.1f} times smaller)\n", what, Grouped(bytes), Grouped(in_float),
                       static_cast<double>(in_float) / static_cast<double>(bytes));
  };
  const auto& achieved = plan.achieved;
  std::int64_t planned = 0;  // bytes in float32
  for (const PlanLayer& layer : plan.layers) {
    std::int64_t weights = 1;
    for (const std::int64_t size : layer.shape) weights *= size;
    if (layer.bits <= 8) planned += 4 * weights;
  }
  std::string text;
  if (achieved.stored_bytes > 0) text += line("planned layers", achieved.stored_bytes, planned);
  if (achieved.network_bytes > 0) {
    text += line("whole network", achieved.network_bytes, achieved.network_bytes - achieved.stored_bytes + planned);
  }
  return text;
}

std::string NotesText(const std::vector<std::string>& notes) {
  std::string text;
  for (const auto& note : notes) text += fmt::format("note               {}\n", note);
  return text;
}

// What the totals leave out, and whether they keep the budget.
std::string OutsideText(const Plan& plan) {
  std::string text;
  if (plan.left_in_float && plan.left_in_float->weights > 0) text += LeftInFloatText(*plan.left_in_float);
  const bool bytes = plan.budget.kind == BudgetKind::kBytes;
  const double spent = bytes ? static_cast<double>(plan.achieved.stored_bytes) : plan.achieved.average_bits;
  if (spent > plan.budget.value + 1e-6) {
    text += fmt::format("over budget        {} {:g} of {:g}: not as the allocator left it\n",
                        BudgetName(plan.budget.kind), spent, plan.budget.value);
  }
  return text;
}

}  // namespace

std::string Text(const pipeline::RunReport& report) {
  constexpr double kRounding = 1e-12;  // nats; differences of sums below it are noise
  const auto& plan = report.plan;
  Table table({"layer", "kind", "shape", ">weights", ">bits", "grid", ">sure"});
  for (const auto& layer : plan.layers) {
    const bool excluded = layer.bits > 8;
    table.Row({layer.name, layer.kind, ShapeText(layer.shape), Grouped(layer.weights()),
               excluded ? "float" : std::to_string(layer.bits), layer.bits == 0 || excluded ? "" : layer.grid,
               layer.confidence < 0.0 || excluded ? "" : fmt::format("{:.0f} %", 100.0 * layer.confidence)});
  }
  auto text = table.Render() + "\n";
  const auto& achieved = plan.achieved;
  const std::string scale = RiseScale(plan.allocator);
  text += fmt::format("model              {}, {} in {}\n", plan.model.name, Counted(plan.model.weights, "weight"),
                      Counted(std::ssize(plan.layers), "layer"));
  if (plan.transferred) {
    text += fmt::format("widths from        {}, sha256 {}: other weights of the same layers\n", plan.transferred->model,
                        plan.transferred->sha256.substr(0, 12));
  }
  text += fmt::format("allocator          {}, budget {} {:g}\n", plan.allocator, BudgetName(plan.budget.kind),
                      plan.budget.value);
  if (report.allocate_ms > 0.0) text += fmt::format("allocation         {:.2f} ms\n", report.allocate_ms);
  if (!report.allocator_note.empty()) text += fmt::format("note               {}\n", report.allocator_note);
  if (report.shadow_price > 0.0) {
    const auto* unit = plan.budget.kind == BudgetKind::kBytes ? "byte" : "bit of one weight";
    text += fmt::format("shadow price       one more {} is worth {:.3g} {}\n", unit, report.shadow_price, scale);
  }
  for (const auto& [pin, rise] : report.pins) {
    text += fmt::format("pin                {} at {} {}\n", pin.pattern, Counted(pin.bits, "bit"),
                        rise ? fmt::format("costs {:.3g} {}", std::abs(*rise) < kRounding ? 0.0 : *rise, scale)
                             : std::string("is what makes the budget possible"));
  }
  text += fmt::format("average bits       {:.3f} ({:.3f} with scales and bit widths)\n", achieved.average_bits,
                      achieved.average_bits_with_overhead);
  text += SizesText(plan);
  text += OutsideText(plan);
  text += fmt::format("predicted rise     {:.4g} {}\n", achieved.predicted_loss_rise, scale);
  text += fmt::format("correction         batch norm {}, outputs {}\n", plan.quantizer.batch_norm,
                      plan.quantizer.output_correction);
  if (plan.calibration) text += CalibrationText(*plan.calibration);
  if (plan.guard) text += GuardText(*plan.guard);
  if (plan.verified) text += VerifiedText(*plan.verified);
  if (report.against) text += AgainstText(*report.against, report.against_file.string());
  text += NotesText(report.notes);
  text += StagesText(report.stages);
  if (!report.quantized_file.empty()) text += fmt::format("quantized model    {}\n", report.quantized_file.string());
  return text + fmt::format("plan               {}\n", report.plan_file.string());
}

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
  int convolutions = 0;
  for (const auto& layer : report.layers) {
    convolutions += layer.kind == "conv2d" ? 1 : 0;
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
  text += fmt::format("layers             {}, {} linear, {}\n", Counted(convolutions, "convolution"),
                      report.layers.size() - static_cast<std::size_t>(convolutions),
                      Counted(report.batch_norms, "batch norm"));
  text += fmt::format(
      "left in float      {:.2g} % of all weights, {}\n",
      100.0 * static_cast<double>(report.float_weights) / static_cast<double>(report.weights + report.float_weights),
      Grouped(report.float_weights));
  text += fmt::format("whole network      {} bytes in float\n", Grouped(report.bytes));
  if (!report.note.empty()) text += fmt::format("note               {}\n", report.note);
  return text + fmt::format("sha256             {}\n", report.sha256);
}

std::string Text(const pipeline::ListReport& report) {
  Table table({"budget", "allocator", ">bits", ">bytes", ">accuracy", ">drop, points", "", "plan"});
  std::string models;
  for (const auto& [plan, plan_file, quantized_file, newest] : report.plans) {
    const auto model = fmt::format("{}, sha256 {}", plan.model.name, plan.model.sha256.substr(0, 12));
    if (model != models && !models.empty()) table.Rule();
    models = model;
    const auto& verified = plan.verified;
    const auto drop = verified ? verified->accuracy_drop : PairedComparison{};
    table.Row({fmt::format("{} {:g}", BudgetName(plan.budget.kind), plan.budget.value), plan.allocator,
               fmt::format("{:.3f}", plan.achieved.average_bits), Grouped(plan.achieved.stored_bytes),
               verified ? fmt::format("{:.2f} %", 100.0 * verified->quantized.accuracy) : "not measured",
               verified ? fmt::format("{:.2f} [{:.2f}, {:.2f}]", 100.0 * drop.drop + 0.0, 100.0 * drop.ci_low + 0.0,
                                      100.0 * drop.ci_high + 0.0)
                        : "",
               newest ? "newest" : "", plan_file.string()});
  }
  auto text = report.plans.empty() ? std::string() : table.Render() + "\n";
  text += fmt::format("folder             {}, {} plan{}\n", report.folder.string(), report.plans.size(),
                      report.plans.size() == 1 ? "" : "s");
  for (const auto& line : report.unreadable) text += fmt::format("no plan            {}\n", line);
  text += NotesText(report.notes);
  if (!report.plans.empty()) {
    text += "to delete one      remove its folder; what lies beside plan.yaml there is its network, quantized.pt\n";
  }
  return text;
}

std::string Text(const pipeline::RankReport& report) {
  Table table({"metric", ">rank corr., KL", ">rank corr., loss", ">seconds"});
  for (const auto& row : report.rows) {
    table.Row({row.metric, fmt::format("{:.4f}", row.spearman_divergence), fmt::format("{:.4f}", row.spearman_loss),
               row.seconds > 0.0 ? fmt::format("{:.1f}", row.seconds) : "saved"});
  }
  return table.Render() +
         fmt::format(
             "\n{}: {} of {} drawn; Spearman's correlation of predicted and "
             "measured rise\n",
             report.model, Counted(std::ssize(report.bits), "random plan"), report.drawn) +
         NotesText(report.notes);
}

namespace {

std::string PairedPoints(const PairedComparison& paired, double sign) {
  const double low = sign > 0.0 ? paired.ci_low : -paired.ci_high, high = sign > 0.0 ? paired.ci_high : -paired.ci_low;
  return fmt::format("{:+.2f} [{:+.2f}, {:+.2f}]", 100.0 * sign * paired.drop + 0.0, 100.0 * low + 0.0,
                     100.0 * high + 0.0);  // + 0.0: no negative zero
}

// Sentences below one another, every line behind an empty label but the first.
std::string Labelled(const std::string& label, const std::string& sentences) {
  constexpr std::size_t kLabel = 19, kLineWidth = 118;
  std::string text = fmt::format("{:<{}}", label, kLabel);
  std::size_t column = kLabel, begin = 0;
  while (begin < sentences.size()) {
    const auto end = std::min(sentences.find(' ', begin), sentences.size());
    if (column + (end - begin) > kLineWidth) {
      text.back() = '\n';
      text += std::string(kLabel, ' ');
      column = kLabel;
    }
    text += sentences.substr(begin, end - begin) + " ";
    column += end - begin + 1;
    begin = end + 1;
  }
  text.back() = '\n';
  return text;
}

std::string RecommendationText(const Comparison& comparison) {
  const auto& recommended = comparison.recommended;
  if (recommended.budgets.empty()) return "";
  const auto line = [&](std::size_t index) {
    const auto& plan = comparison.plans[index];
    return fmt::format("{}{}, {} bytes, drop {}: {}", plan.allocator, plan.random ? fmt::format(" #{}", plan.seed) : "",
                       Grouped(plan.achieved.stored_bytes), PairedPoints(plan.drop, 1.0), plan.file);
  };
  std::string text;
  for (const auto index : recommended.budgets) {
    text += fmt::format("{:<18} {:g} bits: {}\n", index == recommended.budgets.front() ? "recommended" : "",
                        comparison.plans[index].budget, line(index));
  }
  text += recommended.overall ? fmt::format("                   over all: {:g} bits, {}\n",
                                            comparison.plans[*recommended.overall].budget, line(*recommended.overall))
                              : fmt::format("                   over all: none is surely within {:g} points of float\n",
                                            100.0 * recommended.tolerance);
  text += Labelled("rule", RecommendationRule(comparison));
  return text + Labelled("chosen on", fmt::format("{}, {} samples. {}", recommended.data, Grouped(recommended.samples),
                                                  RecommendationCaveat(comparison)));
}

}  // namespace

std::string Text(const pipeline::CompareReport& report) {
  const auto& comparison = report.comparison;
  Table table({">budget", "allocator", ">used", ">bytes", ">accuracy", ">NLL", ">drop", ">over uniform", "best", "choice"});
  double budget = -1.0;
  for (std::size_t i = 0; i < comparison.plans.size(); ++i) {
    const auto& plan = comparison.plans[i];
    if (budget >= 0.0 && plan.budget != budget) table.Rule();
    const auto shown = plan.budget == budget ? std::string() : fmt::format("{:g}", plan.budget);
    budget = plan.budget;
    const auto name = plan.allocator + (plan.random ? fmt::format(" #{}", plan.seed) : "");
    if (!plan.failure.empty()) {
      table.Row({shown, name, "no plan"});
      continue;
    }
    table.Row({shown, name, fmt::format("{:.3f}", plan.achieved.average_bits), Grouped(plan.achieved.stored_bytes),
               fmt::format("{:.2f}", 100.0 * plan.metrics.accuracy), fmt::format("{:.4f}", plan.metrics.nll),
               PairedPoints(plan.drop, 1.0), PairedPoints(plan.below_uniform, -1.0),
               plan.below_best.drop == 0.0 ? "best"
               : plan.tie_with_best        ? "tie"
                                           : "",
               comparison.recommended.overall == i    ? "ship"
               : comparison.recommended.Holds(i) ? "pick"
                                                 : ""});
  }
  auto text = table.Render() + "\n";
  text += fmt::format("model              {}\n", comparison.model);
  text += fmt::format("measured on        {}, {}, float accuracy {:.2f} %, NLL {:.4f}\n", comparison.data,
                      Counted(comparison.samples, "sample"), 100.0 * comparison.float_model.accuracy,
                      comparison.float_model.nll);
  if (comparison.left_in_float.weights > 0) text += LeftInFloatText(comparison.left_in_float);
  text +=
      "intervals          paired, 95 %, points of accuracy; tie: the interval to the best holds 0 (not corrected\n     "
      "              for choosing the best of so many)\n";
  for (const auto& lead : comparison.leads) {
    text += fmt::format("{:<18} {:g} bits: {} {:+.2f} over {}, p {:.2g}\n",
                        &lead == comparison.leads.data() ? "ours, baselines" : "", lead.budget, lead.ours,
                        100.0 * lead.lead + 0.0, lead.baseline, lead.p);
  }
  if (!comparison.leads.empty())
    text += "                   (best against best; p corrected for choosing the one ahead and its rival)\n";
  text += RecommendationText(comparison) + NotesText(comparison.notes);
  for (const auto& plan : comparison.plans) {
    if (!plan.failure.empty())
      text += fmt::format("no plan            {} at {:g}: {}\n", plan.allocator, plan.budget, plan.failure);
  }
  text += StagesText(report.stages);
  if (!report.files.plots)
    text += "plots              gnuplot was not found or failed; data and scripts are in plots/\n";
  const auto plans = report.files.csv.parent_path() / "compare" / "plans";
  return text + fmt::format("plans              {}\ntable              {}\nreport             {}\n",
                            (plans / "ALLOCATOR-BUDGET.yaml").string(), report.files.csv.string(),
                            report.files.html.string());
}

std::string Text(const pipeline::CurveReport& report) {
  Table table({">budget", ">average bits", ">bytes", ">predicted rise", ">shadow price", ">gap", "bits"});
  for (const auto& point : report.points) {
    std::string bits;
    for (const int width : point.bits)
      bits += (bits.empty() ? "" : " ") + (width > 8 ? "float" : std::to_string(width));
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

std::string Text(const pipeline::BayesReport& report) {
  const auto& comparison = report.comparison;
  const auto drift = [](const std::map<std::string, BayesDrift>& drifts, const std::string& role) {
    const auto found = drifts.find(role);
    if (found == drifts.end()) return std::string();
    return fmt::format("{:+.1f}±{:.1f}", 100.0 * found->second.change,
                       50.0 * (found->second.ci_high - found->second.ci_low));
  };
  std::vector<std::string> titles = {"network", ">bytes", ">smaller"};
  for (const auto& [role, data] : comparison.data) {
    if (role != "out-of-distribution") titles.push_back(">acc. " + data);
  }
  titles.emplace_back(">drop, points");
  for (const auto& [role, data] : comparison.data) titles.push_back(">alea./epi. " + data);
  titles.insert(titles.end(), {">AUROC alea.", ">AUROC epi."});
  Table table(titles);
  for (const auto& row : comparison.rows) {
    double bytes = 0.0, float_bytes = 0.0, alea = 0.0, epi = 0.0;
    const auto n = static_cast<double>(row.seeds.size());
    for (const auto& seed : row.seeds) {
      bytes += static_cast<double>(seed.stored_bytes) / n;
      float_bytes += static_cast<double>(seed.float_bytes) / n;
      alea += seed.auroc_aleatoric / n;
      epi += seed.auroc_epistemic / n;
    }
    std::vector<std::string> cells = {row.name, Grouped(std::llround(bytes)),
                                      fmt::format("{:.2f}", float_bytes / bytes)};
    for (const auto& [role, data] : comparison.data) {
      if (role != "out-of-distribution") cells.push_back(fmt::format("{:.2f}", 100.0 * MeanAccuracy(row, role)));
    }
    const auto all = row.drops.find("all");
    cells.push_back(all == row.drops.end() ? ""
                                           : fmt::format("{:+.2f} [{:+.2f}, {:+.2f}]", 100.0 * all->second.drop,
                                                         100.0 * all->second.ci_low, 100.0 * all->second.ci_high));
    for (const auto& [role, data] : comparison.data) {
      if (!row.scheme.empty()) {
        cells.push_back(drift(row.aleatoric_drift, role) + " / " + drift(row.epistemic_drift, role) + " %");
        continue;
      }
      double aleatoric = 0.0, epistemic = 0.0;
      for (const auto& seed : row.seeds) {
        aleatoric += seed.splits.at(role).aleatoric / n;
        epistemic += seed.splits.at(role).epistemic / n;
      }
      cells.push_back(fmt::format("{:.4f} / {:.4f} nats", aleatoric, epistemic));
    }
    cells.push_back(alea < 0.0 ? "" : fmt::format("{:.4f}", alea));
    cells.push_back(epi < 0.0 ? "" : fmt::format("{:.4f}", epi));
    table.Row(std::move(cells));
  }
  auto text = table.Render() + "\n";
  text += fmt::format("model              {}, {} of the weights, {}\n", comparison.model,
                      Counted(comparison.draws, "draw"), Counted(std::ssize(comparison.rows.front().seeds), "seed"));
  text +=
      "drop               accuracy lost against float on all labelled images, paired 95 % interval, positive: worse\n"
      "alea./epi.         change of mean aleatoric / epistemic uncertainty against float on the same draws,\n"
      "                   mean over the seeds, ± half the 95 % interval over draws\n";
  text += NotesText(report.notes);
  return text + fmt::format("report             {}\n", (report.folder / "report.html").string());
}

std::string Text(const pipeline::MakeDataReport& report) {
  Table table({"half", ">images", ">drawn", ">kept", ">share", ">entropy", ">mutual inf.", ">agreement"});
  for (const bool train : {true, false}) {
    const auto& half = train ? report.train : report.test;
    table.Row({train ? "train" : "test", Grouped(half.images), Grouped(half.drawn), Grouped(half.kept),
               fmt::format("{:.1f} %", 100.0 * static_cast<double>(half.kept) / static_cast<double>(half.drawn)),
               fmt::format("{:.4f}", half.entropy), fmt::format("{:.4f}", half.information),
               fmt::format("{:.1f} %", 100.0 * half.agreement)});
  }
  return table.Render() + "\n" +
         fmt::format("data set           {}, {} for each image, seed {}\n", report.name,
                     Counted(report.labels, "label"), report.seed) +
         fmt::format("made by            bitplan {}, {}\n", report.version,
                     report.made ? Duration(report.seconds) : "already there") +
         "entropy            and mutual information: means over the images, nats\n"
         "agreement          labels that are the ensemble's most probable class\n" +
         fmt::format("images             {}\nlabels             {}\n", report.samples_file.string(),
                     report.labels_file.string());
}

}  // namespace bitplan::cli
