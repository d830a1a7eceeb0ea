#include "report/html.h"

#include <fmt/format.h>

#include "bitplan/core/counted.h"
#include "bitplan/core/figures.h"

namespace bitplan {
namespace {

constexpr const char* kStyle = R"(
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
a { color: #174a85; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; } td { vertical-align: top; } td small { color: #555; }
th:first-child, td:first-child, .note { text-align: left; }
td.note { white-space: normal; min-width: 14rem; overflow-wrap: anywhere; color: #555; font-size: .85em; }
tr.best td { background: #eef6ee; } tr.baseline td:first-child { color: #5c5c5c; }
figure { margin: 1.2rem 0; } figcaption { color: #555; font-size: .9em; } svg { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
)";

// SVG files begin with an XML declaration that has no place inside HTML.
std::string Inline(const std::string& svg) {
  const auto begin = svg.find("<svg");
  return begin == std::string::npos ? "" : svg.substr(begin);
}

}  // namespace

std::string HtmlText(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string HtmlPage(const std::string& title, const std::string& body) {
  return fmt::format(
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>bitplan: {}</title><style>{}</style></head>\n"
      "<body>{}</body></html>\n",
      HtmlText(title), kStyle, body);
}

std::string HtmlFigures(const std::vector<DrawnFigure>& figures) {
  std::string html;
  for (const DrawnFigure& figure : figures) {
    const std::string drawing =
        figure.svg.empty()
            ? fmt::format("<p>(gnuplot was not found or failed; data and script are in plots/{}.dat and .gp)</p>",
                          figure.name)
            : Inline(figure.svg);
    html += fmt::format("<figure>{}<figcaption>{}</figcaption></figure>\n", drawing, HtmlText(figure.caption));
  }
  return html;
}

namespace {

std::string Points(const PairedComparison& paired, double sign) {
  const double low = sign > 0 ? paired.ci_low : -paired.ci_high, high = sign > 0 ? paired.ci_high : -paired.ci_low;
  return fmt::format("{:+.2f}<br><small>[{:+.2f}, {:+.2f}]</small>", 100.0 * sign * paired.drop + 0.0,
                     100.0 * low + 0.0, 100.0 * high + 0.0);  // + 0.0: no negative zero
}

// The plan's file where there is one: a report lies beside it.
std::string Linked(const ComparedPlan& plan) {
  const std::string name = HtmlText(plan.Name());
  return plan.file.empty() ? name : fmt::format("<a href=\"{}\">{}</a>", HtmlText(plan.file), name);
}

// The cell of the second reference, in tables that have its column.
std::string AgainstCorrected(const ComparedPlan& plan, bool column) {
  if (!column) return "";
  return "<td>" + (plan.float_corrected ? Points(plan.float_corrected->accuracy_drop, 1.0) : "the same") + "</td>";
}

std::string CorrectedHeader(bool column) { return column ? "<th>drop from float, corrected</th>" : ""; }

// What the corrections make of the float network itself, where they change it.
std::string CorrectedFloats(const Comparison& comparison) {
  const auto plans = PlansOfCorrectedFloats(comparison);
  if (plans.empty()) return "";
  std::string html =
      "<p>Re-estimated batch norms change the float network too. Float, corrected is the float network with the same "
      "correction as the plan, on the same samples:";
  for (const ComparedPlan* plan : plans) {
    html += (plan == plans.front() ? " batch norm " : "; batch norm ") + HtmlText(CorrectedFloatText(*plan));
  }
  return html + ". Other corrections leave a float network as it is.</p>\n";
}

std::string Recommended(const Comparison& comparison) {
  const Recommendations& recommended = comparison.recommended;
  if (recommended.budgets.empty()) return "";
  const bool corrected = !PlansOfCorrectedFloats(comparison).empty();
  std::string html = fmt::format(
      "<h2>Recommended</h2>\n<p>{}</p>\n<p>Chosen on {}, {}. {} A plan's name is a link to its file, which "
      "<code>bitplan verify --plan</code> takes.</p>\n<table><tr><th>budget</th><th>plan</th><th>bytes</th>"
      "<th>bytes of the whole network</th><th>{}</th><th>drop from float on {}</th>"
      "{}<th>the same where it was chosen</th></tr>\n",
      HtmlText(RecommendationRule(comparison)), HtmlText(recommended.data), Counted(recommended.samples, "sample"),
      HtmlText(RecommendationCaveat(comparison)), FigureTitle(comparison.score), HtmlText(comparison.data),
      CorrectedHeader(corrected));
  const auto row = [&](std::size_t index, const std::string& where) {
    const ComparedPlan& plan = comparison.plans[index];
    return fmt::format("<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2f}</td><td>{}</td>{}<td>{}</td></tr>\n",
                       where, Linked(plan), plan.achieved.stored_bytes, plan.achieved.network_bytes,
                       100.0 * plan.metrics.accuracy, Points(plan.drop, 1.0), AgainstCorrected(plan, corrected),
                       Points(plan.choice_drop, 1.0));
  };
  for (const std::size_t index : recommended.budgets)
    html += "<tr>" + row(index, comparison.plans[index].budget.Words());
  html += recommended.overall
              ? "<tr class=best>" + row(*recommended.overall, "over all")
              : fmt::format("<tr><td>over all</td><td class=note colspan={}>no plan is surely within {}</td></tr>\n",
                            corrected ? 7 : 6, Quantity(100.0 * recommended.tolerance, "point"));
  return html + "</table>\n";
}

// The mean, and where there are several seeds their standard deviation and number.
std::string Accuracy(const ComparedPlan& plan) {
  const auto mean = fmt::format("{:.2f}", 100.0 * plan.metrics.accuracy);
  if (plan.seeds.size() < 2) return mean;
  return mean + fmt::format("<br><small>sd {:.2f}, {} seeds</small>", 100.0 * plan.accuracy_spread, plan.seeds.size());
}

std::string Row(const ComparedPlan& plan, bool recommended, bool corrected) {
  const bool pairs = plan.budget.IsPair();
  const std::string name = Linked(plan) + (recommended ? "<br><strong>recommended</strong>" : "");
  if (!plan.failure.empty()) {
    return fmt::format("<tr><td>{}</td><td class=note colspan={}>{}</td></tr>\n", name,
                       9 + (corrected ? 1 : 0) + (pairs ? 1 : 0), HtmlText(plan.failure));
  }
  const char* kind = plan.tie_with_best ? "best" : plan.baseline ? "baseline" : "";
  return fmt::format(
      "<tr class=\"{}\"><td>{}</td><td>{:.3f}</td>{}<td>{}</td><td>{}</td><td>{}</td><td>{:.4f}</td><td>{}</td>"
      "{}<td>{}</td><td>{}</td><td class=note>{}</td></tr>\n",
      kind, name, plan.achieved.average_bits, pairs ? fmt::format("<td>{:.0f}</td>", plan.bops) : std::string(),
      plan.achieved.stored_bytes, plan.achieved.network_bytes, Accuracy(plan), plan.metrics.nll, Points(plan.drop, 1.0),
      AgainstCorrected(plan, corrected), plan.below_uniform ? Points(*plan.below_uniform, -1.0) : std::string(),
      plan.tie_with_best ? (plan.below_best.drop == 0.0 ? "best" : "tie") : Points(plan.below_best, 1.0),
      HtmlText(plan.note));
}

}  // namespace

std::string ComparisonHtml(const Comparison& comparison, const std::vector<DrawnFigure>& figures) {
  std::string html = fmt::format(
      "<h1>{0}: plans for {1}</h1>\n<p>Measured on {2}, {3}; float {7} {4:.2f}{8}, NLL {5:.4f}. Every plan saw "
      "the same samples. Intervals, in points of {7}, are {6}; a plan whose interval to the best of its "
      "budget holds 0 is a tie (shaded). Bytes are those of the planned layers, packed; the whole network has what "
      "stays in float too. No fine-tuning.</p>\n",
      HtmlText(comparison.name), HtmlText(comparison.model), HtmlText(comparison.data),
      Counted(comparison.samples, "sample"), 100.0 * comparison.float_model.accuracy, comparison.float_model.nll,
      HtmlText(IntervalsMeaning(comparison)), FigureTitle(comparison.score),
      FindFigureKind(comparison.score).share ? " %" : "");
  html += CorrectedFloats(comparison);
  for (const auto& note : comparison.notes) html += fmt::format("<p><b>Note:</b> {}</p>\n", HtmlText(note));
  html += Recommended(comparison) + HtmlFigures(figures);
  const bool corrected = !PlansOfCorrectedFloats(comparison).empty();
  const ComparedBudget* budget = nullptr;
  for (std::size_t i = 0; i < comparison.plans.size(); ++i) {
    const ComparedPlan& plan = comparison.plans[i];
    if (budget == nullptr || plan.budget != *budget) {
      if (budget != nullptr) html += "</table></div>\n";
      budget = &plan.budget;
      html += fmt::format(
          "<h2>Budget {}</h2><div class=scroll><table><tr><th>allocator</th><th>bits used</th>{}<th>bytes</th>"
          "<th>bytes of the whole network</th><th>{}</th><th>NLL</th><th>drop from float</th>{}<th>over "
          "uniform</th><th>below the best</th>"
          "<th class=note>note</th></tr>\n",
          budget->Words(), budget->IsPair() ? "<th>bit operations</th>" : "", FigureTitle(comparison.score),
          CorrectedHeader(corrected));
    }
    html += Row(plan, comparison.recommended.Holds(i), corrected);
  }
  if (budget != nullptr) html += "</table></div>\n";
  if (!comparison.leads.empty()) {
    html += "<h2>Ours against the baselines</h2>\n<p>The best plan of either side. p: " +
            std::string(comparison.calibration_seeds.size() > 1  ? "Student's t, as the intervals,"
                        : comparison.float_model.figures.empty() ? "McNemar's exact test"
                                                                 : "Student's t over samples,") +
            " against every plan of the other side, corrected for choosing the plan ahead among its own.</p>\n"
            "<table><tr><th>budget</th><th>ours</th><th>baseline</th><th>lead, points</th><th>p</th></tr>\n";
    for (const BudgetLead& lead : comparison.leads) {
      html += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{:+.2f}</td><td>{:.2g}</td></tr>\n",
                          lead.budget.Words(), HtmlText(lead.ours), HtmlText(lead.baseline), 100.0 * lead.lead + 0.0,
                          lead.p);
    }
    html += "</table>\n";
  }
  return HtmlPage(comparison.name, html);
}

}  // namespace bitplan
