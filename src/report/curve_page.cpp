#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "bitplan/core/counted.h"
#include "bitplan/core/figures.h"
#include "bitplan/report/measured_curve.h"
#include "io/json_text.h"
#include "report/curve_script.h"
#include "report/html.h"

namespace bitplan {
namespace {

constexpr const char* kCurveStyle = R"(
#chart { width: 100%; max-width: 60rem; touch-action: none; cursor: ew-resize; user-select: none; }
#chart text { font-size: 13px; fill: #444; } #chart .grid { stroke: #e8e8e8; }
#chart .float { stroke: #222; stroke-dasharray: 5 4; } #chart .cursor { stroke: #b3261e; stroke-width: 2; }
#chart line.ours { stroke: #174a85; stroke-width: 2; } #chart circle.ours { fill: #174a85; }
#chart line.uniform { stroke: #777; stroke-width: 2; } #chart rect.uniform { fill: #777; }
#budget { width: 100%; max-width: 60rem; } .columns { display: flex; flex-wrap: wrap; gap: 0 3rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: .2rem 1.2rem; } dt { color: #555; } dd { margin: 0; }
.drawn { text-align: left; min-width: 10rem; }
.bar { display: inline-block; height: .7rem; background: #9db8d6; margin-right: .4rem; }
tr.changed td { background: #fdf3d8; } td.left, th.left { text-align: left; } pre { font-size: .85em; overflow-x: auto; }
)";

std::vector<std::string> LinesOf(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t begin = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  lines.push_back(text.substr(begin));
  return lines;
}

// A plan as the lines in which it is not the first one: a page of many plans stays small.
nlohmann::ordered_json PlanJson(const FrontPlan& plan, const std::vector<std::string>& base) {
  nlohmann::ordered_json json = {{"bits", plan.bits},
                                 {"activation_bits", plan.activation_bits},
                                 {"spent", plan.spent},
                                 {"rise", plan.predicted_rise}};
  const std::vector<std::string> lines = LinesOf(plan.yaml);
  if (lines.size() != base.size()) {
    json["text"] = plan.yaml;
    return json;
  }
  auto changed = nlohmann::ordered_json::array();
  for (std::size_t l = 0; l < lines.size(); ++l) {
    if (lines[l] != base[l]) changed.push_back({l, lines[l]});
  }
  json["lines"] = std::move(changed);
  return json;
}

// Scores in hundredths; the interval is that of the drop, put at the float network's accuracy.
nlohmann::ordered_json MeasuredJson(const MeasuredCurve& curve, const CurvePlan& plan) {
  std::vector<int> bits, activation_bits;
  for (const PlanLayer& layer : plan.plan.layers) {
    bits.push_back(layer.bits);
    activation_bits.push_back(layer.activation_bits);
  }
  const Verification& verified = *plan.plan.verified;
  return {{"allocator", MakerOf(curve, plan)},
          {"uniform", plan.uniform},
          {"bits", bits},
          {"activation_bits", activation_bits},
          {"spent", plan.spent},
          {"score", 100.0 * verified.quantized.accuracy},
          {"low", 100.0 * (verified.float_model.accuracy - verified.accuracy_drop.ci_high)},
          {"high", 100.0 * (verified.float_model.accuracy - verified.accuracy_drop.ci_low)}};
}

// The front's plan in the middle of what was measured, to begin with.
std::size_t StartOf(const MeasuredCurve& curve) { return curve.front.empty() ? 0 : curve.front.size() / 2; }

std::string PageData(const MeasuredCurve& curve) {
  auto resources = nlohmann::ordered_json::array(), layers = nlohmann::ordered_json::array(),
       measured = nlohmann::ordered_json::array(), front = nlohmann::ordered_json::array();
  for (const Resource* resource : curve.resources) {
    resources.push_back({{"name", resource->name},
                         {"words", resource->words},
                         {"unit", resource->unit},
                         {"per_weight", resource->per_weight}});
  }
  bool activations = false;
  for (const PlanLayer& layer : curve.plans.front().plan.layers) {
    layers.push_back({{"name", layer.name}, {"weights", layer.weights()}});
    activations = activations || layer.activation_bits <= 16;
  }
  for (const CurvePlan& plan : curve.plans) measured.push_back(MeasuredJson(curve, plan));
  const std::string base = curve.front.empty() ? "" : curve.front.front().yaml;
  for (const FrontPlan& plan : curve.front) front.push_back(PlanJson(plan, LinesOf(base)));
  const nlohmann::ordered_json json = {{"resources", resources},
                                       {"layers", layers},
                                       {"activations", activations},
                                       {"float", 100.0 * curve.float_model.accuracy},
                                       {"score_unit", FindFigureKind(curve.score).share ? " %" : ""},
                                       {"rise_unit", curve.rise_unit},
                                       {"measured", measured},
                                       {"front", front},
                                       {"start", StartOf(curve)},
                                       {"base", base}};
  // Inside a script element nothing may look like markup.
  std::string text;
  for (const char c : JsonText(json)) text += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return text;
}

std::string PlanRow(const MeasuredCurve& curve, const CurvePlan& plan) {
  const Verification& verified = *plan.plan.verified;
  const PairedComparison& drop = verified.accuracy_drop;
  std::string html = fmt::format("<tr class=\"{}\"><td><a href=\"{}\">{}</a></td>",
                                 plan.dominated_by ? (plan.uniform ? "baseline" : "") : "best", HtmlText(plan.file),
                                 HtmlText(MakerOf(curve, plan)));
  for (std::size_t r = 0; r < plan.spent.size(); ++r) {
    html +=
        fmt::format("<td>{}</td>", curve.resources[r]->per_weight ? fmt::format("{:.3f}", plan.spent[r])
                                                                  : Grouped(static_cast<std::int64_t>(plan.spent[r])));
  }
  html += fmt::format("<td>{:.2f}</td><td>{:.2f}<br><small>[{:.2f}, {:.2f}]</small></td>",
                      100.0 * verified.quantized.accuracy, 100.0 * drop.drop + 0.0, 100.0 * drop.ci_low + 0.0,
                      100.0 * drop.ci_high + 0.0);
  std::string by;
  if (plan.dominated_by) {
    const CurvePlan& other = curve.plans[*plan.dominated_by];
    const Resource& resource = *curve.resources.front();
    by = fmt::format("{} at {}{}", MakerOf(curve, other),
                     resource.per_weight ? fmt::format("{:.3f}", other.spent.front())
                                         : Grouped(static_cast<std::int64_t>(other.spent.front())),
                     plan.surely ? ", surely" : "");
  }
  return html + fmt::format("<td class=left>{}</td></tr>\n", HtmlText(by));
}

}  // namespace

std::string CurveHtml(const MeasuredCurve& curve) {
  bool activations = false;
  for (const PlanLayer& layer : curve.plans.front().plan.layers)
    activations = activations || layer.activation_bits <= 16;
  std::string html = fmt::format(
      "<style>{}</style><h1>{}: {} against {}</h1>\n<p>{}, plans by {}. Points were measured on {}, {}; bars are "
      "paired 95 % intervals of the drop over images. Circles are the allocator's plans, squares give all "
      "layers one width. Drag the red line or the slider: the solver's plans between the points are predicted, not "
      "measured.</p>\n",
      kCurveStyle, HtmlText(curve.name), FigureTitle(curve.score), HtmlText(curve.resources.front()->words),
      HtmlText(curve.model), HtmlText(curve.allocator), HtmlText(curve.data), Counted(curve.samples, "sample"));
  for (const std::string& note : curve.notes) html += fmt::format("<p><b>Note:</b> {}</p>\n", HtmlText(note));
  html +=
      "<p><label>Against <select id=axis></select></label></p>\n<svg id=chart viewBox=\"0 0 900 400\" role=img "
      "aria-label=\"measured plans\"></svg>\n<p><label>Budget<br><input id=budget type=range min=0 "
      "step=1></label></p>\n<p><button id=save>Save this plan</button> as plan.yaml; <code>bitplan verify RECIPE "
      "--plan plan.yaml</code> measures it and writes the figures into the file.</p>\n<div class=columns><dl "
      "id=facts></dl>\n<div "
      "class=scroll><table id=layers><thead><tr><th>layer</th><th>weights</th><th class=drawn>bits</th>";
  if (activations) html += "<th>activation bits</th>";
  html +=
      "</tr></thead><tbody></tbody></table></div></div>\n<h2>Measured plans</h2>\n<div class=scroll><table><tr>"
      "<th>plan</th>";
  for (const Resource* resource : curve.resources) html += fmt::format("<th>{}</th>", HtmlText(resource->words));
  html += fmt::format("<th>{}{}</th>", FigureTitle(curve.score), FindFigureKind(curve.score).share ? ", %" : "");
  html += "<th>drop, points</th><th class=left>dominated by</th></tr>\n";
  for (const CurvePlan& plan : curve.plans) html += PlanRow(curve, plan);
  html += fmt::format(
      "</table></div>\n<p>Shaded: on the front. A plan is dominated by one that takes no more {} and has "
      "no lower score; surely, where the paired 95 % interval of the two excludes 0.</p>\n<details><summary>The plan "
      "as a "
      "file</summary><pre id=plan></pre></details>\n<script type=\"application/json\" "
      "id=curve-data>{}</script>\n<script>{}</script>\n",
      HtmlText(curve.resources.front()->words), PageData(curve), kCurveScript);
  return HtmlPage(curve.name, html);
}

}  // namespace bitplan
