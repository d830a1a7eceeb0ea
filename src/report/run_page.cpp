#include "bitplan/report/run_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/counted.h"
#include "io/yaml_text.h"
#include "report/gnuplot.h"
#include "report/html.h"

namespace bitplan {
namespace {

constexpr const char* kPageStyle = R"(
.bar { display: inline-block; height: .8em; background: #1f5fa8; vertical-align: baseline; margin-right: .4em; }
.bar.rise { background: #a03030; } td.drawn, th.drawn { text-align: left; min-width: 9rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: .2rem 1.2rem; } dt { color: #555; } dd { margin: 0; }
)";

// The predicted rise against average bits, on a logarithmic axis: the plan is the ring.
Drawing CurveDrawing(const RunPage& page) {
  Drawing drawing{
      "curve",
      fmt::format("Loss rise that the sensitivity table predicts for the plans of {}, against their average "
                  "bits; the ring is this plan.",
                  page.curve_allocator),
      "# average bits, predicted rise\n", ""};
  int drawn = 0;
  for (const RunPagePoint& point : page.curve) {
    if (!(point.predicted_rise > 0.0)) continue;
    drawing.data += fmt::format("{} {}\n", point.average_bits, point.predicted_rise);
    ++drawn;
  }
  const PlanAchieved& achieved = page.plan.achieved;
  const bool ring = achieved.predicted_loss_rise > 0.0;
  if (ring) drawing.data += fmt::format("\n\n{} {}\n", achieved.average_bits, achieved.predicted_loss_rise);
  if (drawn < 2) drawing.name.clear();
  drawing.script = GnuplotHeader("curve") +
                   "set logscale y\nset format y '%g'\nset xlabel 'average bits per weight'\nset ylabel " +
                   GnuplotText("predicted rise, " + page.rise_unit) + "\nunset key\n" +
                   "plot 'curve.dat' index 0 using 1:2 with linespoints lc 1 pt 7 ps 0.5 lw 2" +
                   (ring ? ", 'curve.dat' index 1 using 1:2 with points pt 6 ps 2.4 lw 2 lc rgb '#222222'\n" : "\n");
  return drawing;
}

std::string Entry(const std::string& name, const std::string& value) {
  return fmt::format("<dt>{}</dt><dd>{}</dd>\n", HtmlText(name), HtmlText(value));
}

std::string MetricsRow(const std::string& name, const Metrics& metrics) {
  return fmt::format("<tr><td>{}</td><td>{:.2f} %</td><td>{:.4f}</td><td>{:.4f}</td><td>{:.4f}</td></tr>\n",
                     HtmlText(name), 100.0 * metrics.accuracy, metrics.nll, metrics.brier, metrics.ece);
}

// Of another task than classification.
std::string MeasuredTask(const Verification& verified) {
  std::string html =
      fmt::format("<h2>Float against quantized</h2>\n<p>{}, {}; task {}.</p>\n<table><tr><th>network</th>",
                  HtmlText(verified.data), Counted(verified.samples, "sample"), HtmlText(verified.task));
  for (const Figure& figure : verified.float_model.figures) {
    html += fmt::format("<th>{}</th>", HtmlText(FindFigureKind(figure.name).title));
  }
  html += "</tr>\n";
  const auto row = [&](const char* name, const Metrics& metrics) {
    html += fmt::format("<tr><td>{}</td>", name);
    for (const Figure& figure : metrics.figures) html += fmt::format("<td>{}</td>", FigureText(figure));
    html += "</tr>\n";
  };
  row("float", verified.float_model);
  if (verified.float_corrected) row("float, corrected", verified.float_corrected->metrics);
  row("quantized", verified.quantized);
  const PairedComparison& drop = verified.accuracy_drop;
  const FigureKind& score = FindFigureKind(verified.score());
  const double scale = score.share ? 100.0 : 1.0;
  return html +
         fmt::format("</table>\n<p>Drop of {} {:.4f}{}, paired 95 % interval over images [{:.4f}, {:.4f}].</p>\n",
                     HtmlText(score.title), scale * drop.drop + 0.0, score.share ? " points" : "",
                     scale * drop.ci_low + 0.0, scale * drop.ci_high + 0.0);
}

std::string Measured(const Verification& verified) {
  if (!verified.task.empty()) return MeasuredTask(verified);
  std::string html = fmt::format(
      "<h2>Float against quantized</h2>\n<p>{}, {}.</p>\n<table><tr><th>network</th><th>accuracy</th><th>NLL</th>"
      "<th>Brier</th><th>ECE</th></tr>\n",
      HtmlText(verified.data), Counted(verified.samples, "sample"));
  html += MetricsRow("float", verified.float_model);
  if (verified.float_corrected) html += MetricsRow("float, corrected", verified.float_corrected->metrics);
  html += MetricsRow("quantized", verified.quantized);
  const PairedComparison& drop = verified.accuracy_drop;
  return html + fmt::format("</table>\n<p>Accuracy drop {:.2f} points, paired 95 % interval [{:.2f}, {:.2f}].</p>\n",
                            100.0 * drop.drop + 0.0, 100.0 * drop.ci_low + 0.0, 100.0 * drop.ci_high + 0.0);
}

std::string Bar(const char* kind, double share, const std::string& text) {
  return fmt::format("<td class=drawn><span class=\"bar{}\" style=\"width:{:.2f}rem\"></span>{}</td>", kind,
                     6.0 * std::clamp(share, 0.0, 1.0), text);
}

std::string LayerTable(const RunPage& page) {
  double most = 0.0;
  for (const RunPageLayer& layer : page.layers) most = std::max(most, layer.predicted_rise.value_or(0.0));
  const bool rounds = RoundsActivations(page.plan);
  std::string html =
      "<h2>Layers</h2>\n<div class=scroll><table><tr><th>layer</th><th>kind</th><th>weights</th><th "
      "class=drawn>bits</th>" +
      std::string(rounds ? "<th>bits of the input</th>" : "") +
      "<th>grid</th><th>log2 sigma, median</th><th class=drawn>predicted rise" + (rounds ? " of the weights" : "") +
      ", " + HtmlText(page.rise_unit) + "</th><th>sure</th></tr>\n";
  for (std::size_t l = 0; l < page.plan.layers.size(); ++l) {
    const PlanLayer& layer = page.plan.layers[l];
    const RunPageLayer& facts = page.layers.at(l);
    html += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td>", HtmlText(layer.name), HtmlText(layer.kind),
                        Grouped(layer.weights()));
    if (layer.bits > 8) {
      html += std::string("<td class=drawn>float</td>") + (rounds ? "<td>float</td>" : "") +
              "<td></td><td></td><td></td><td></td></tr>\n";
      continue;
    }
    html += Bar("", layer.bits / 8.0, std::to_string(layer.bits));
    if (rounds) {
      html += fmt::format("<td>{}</td>",
                          layer.activation_bits > 16 ? std::string("float") : std::to_string(layer.activation_bits));
    }
    html += fmt::format("<td>{}</td>", layer.bits == 0 ? "" : HtmlText(layer.grid));
    html += facts.log2_sigma ? fmt::format("<td>{:.2f}</td>", *facts.log2_sigma) : "<td></td>";
    html += facts.predicted_rise ? Bar(" rise", most > 0.0 ? *facts.predicted_rise / most : 0.0,
                                       fmt::format("{:.3g}", *facts.predicted_rise))
                                 : "<td></td>";
    html +=
        layer.confidence < 0.0 ? "<td></td></tr>\n" : fmt::format("<td>{:.0f} %</td></tr>\n", 100.0 * layer.confidence);
  }
  return html + "</table></div>\n";
}

}  // namespace

std::string RunPageHtml(const RunPage& page, const std::filesystem::path& plots) {
  const Plan& plan = page.plan;
  const PlanAchieved& achieved = plan.achieved;
  std::string html = fmt::format("<style>{}</style><h1>{}</h1>\n<dl>\n", kPageStyle, HtmlText(page.title));
  html += Entry("model", fmt::format("{}, {} in {}", plan.model.name, Counted(plan.model.weights, "weight"),
                                     Counted(std::ssize(plan.layers), "layer")));
  std::string budget;
  for (const Limit& limit : plan.budget.limits) {
    budget += (budget.empty() ? "" : ", ") + LimitName(limit) + " " + FormatLimitValue(limit);
  }
  html += Entry("allocator", fmt::format("{}, budget {}", plan.allocator, budget));
  html += Entry("average bits", fmt::format("{:.3f}, {:.3f} with scales and widths", achieved.average_bits,
                                            achieved.average_bits_with_overhead));
  html += Entry("planned layers",
                fmt::format("{}, {:.2f} times smaller", Counted(achieved.stored_bytes, "byte"), achieved.compression));
  if (achieved.network_bytes > 0) {
    html += Entry("whole network", fmt::format("{}, {:.2f} times smaller", Counted(achieved.network_bytes, "byte"),
                                               achieved.network_compression));
  }
  if (RoundsActivations(plan)) {
    html += Entry("bit operations",
                  Grouped(static_cast<std::int64_t>(Spent(plan, FindResource("bops")))) + " for one input");
    if (achieved.activation_bytes) html += Entry("peak activations", Counted(*achieved.activation_bytes, "byte"));
  }
  html += Entry("predicted rise", fmt::format("{:.4g} {}", achieved.predicted_loss_rise, page.rise_unit));
  if (achieved.optimality_gap >= 0.0) {
    html += Entry("optimality gap",
                  achieved.optimality_gap == 0.0 ? "0, proven" : fmt::format("{:.3g}", achieved.optimality_gap));
  }
  if (const auto& learned = plan.learned) {
    html += Entry("learned rounding",
                  fmt::format("divergence {:.4g} to {:.4g} nats on {} training samples that did not teach; {}",
                              learned->before, learned->after, learned->images,
                              learned->kept ? fmt::format("{:.2f} % of the codes moved", 100.0 * learned->moved)
                                            : "left as it was"));
  }
  html += Entry("correction",
                fmt::format("batch norm {}, outputs {}", plan.quantizer.batch_norm, plan.quantizer.output_correction));
  if (plan.drop) {
    html += Entry("drop bound",
                  fmt::format("{:g} points, 95 % sure: at most {:.2f} on {} of {}", 100.0 * plan.drop->at_most,
                              100.0 * plan.drop->upper95, Counted(plan.drop->images, "image"), plan.drop->data));
  }
  html += "</dl>\n";
  for (const std::string& note : page.notes) html += fmt::format("<p><b>Note:</b> {}</p>\n", HtmlText(note));
  if (plan.verified) html += Measured(*plan.verified);
  html += LayerTable(page);
  const Drawing curve = CurveDrawing(page);
  if (!curve.name.empty()) html += "<h2>All budgets</h2>\n" + HtmlFigures(Draw({curve}, plots));
  return HtmlPage(page.title, html);
}

}  // namespace bitplan
