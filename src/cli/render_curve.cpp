#include <fmt/format.h>

#include <algorithm>

#include "bitplan/core/counted.h"
#include "bitplan/core/figures.h"
#include "cli/render.h"
#include "cli/render_parts.h"
#include "cli/table.h"

namespace bitplan::cli {
namespace {

std::string AmountText(const Resource& resource, double amount) {
  return resource.per_weight ? fmt::format("{:.3f}", amount) : Grouped(static_cast<std::int64_t>(amount));
}

// "8 4 2 2", "8/8 4/8 2/4" with activations, runs of equal widths as "2 x17".
std::string WidthsText(const Plan& plan) {
  std::string text, last;
  int run = 0;
  const auto close = [&] {
    if (run > 0) text += fmt::format("{}{}{}", text.empty() ? "" : " ", last, run > 1 ? fmt::format(" x{}", run) : "");
  };
  for (const PlanLayer& layer : plan.layers) {
    std::string widths = layer.bits > 8 ? "float" : std::to_string(layer.bits);
    if (layer.activation_bits <= 16) widths += fmt::format("/{}", layer.activation_bits);
    if (widths == last) {
      ++run;
      continue;
    }
    close();
    last = widths;
    run = 1;
  }
  close();
  return text;
}

}  // namespace

std::string Text(const pipeline::MeasuredCurveReport& report) {
  const MeasuredCurve& curve = report.curve;
  const bool share = FindFigureKind(curve.score).share;
  std::vector<std::string> titles = {"plan"};
  for (const Resource* resource : curve.resources) titles.push_back(std::string(">") + resource->words);
  titles.insert(titles.end(), {fmt::format(">{}{}", FigureTitle(curve.score), share ? ", %" : ""), ">drop, points",
                               "dominated by", "bits"});
  Table table(titles);
  for (const CurvePlan& plan : curve.plans) {
    std::vector<std::string> row = {MakerOf(curve, plan)};
    for (std::size_t r = 0; r < plan.spent.size(); ++r) row.push_back(AmountText(*curve.resources[r], plan.spent[r]));
    const Verification& verified = *plan.plan.verified;
    row.push_back(fmt::format("{:.2f}", 100.0 * verified.quantized.accuracy));
    row.push_back(PointsText(verified.accuracy_drop, 1.0));
    std::string by;
    if (plan.dominated_by) {
      const CurvePlan& other = curve.plans[*plan.dominated_by];
      by = fmt::format("{} {}{}", MakerOf(curve, other), AmountText(*curve.resources.front(), other.spent.front()),
                       plan.surely ? ", surely" : "");
    }
    row.push_back(by);
    row.push_back(WidthsText(plan.plan));
    table.Row(row);
  }
  return table.Render() +
         fmt::format("\nmodel              {}\nmeasured on        {}, {}, float {} {:.2f}{}\n", curve.model, curve.data,
                     Counted(curve.samples, "sample"), FigureTitle(curve.score), 100.0 * curve.float_model.accuracy,
                     share ? " %" : "") +
         fmt::format(
             "dominated          by a plan that takes no more {} and has no lower score; surely: the paired 95 % "
             "interval excludes 0\n",
             curve.resources.front()->words) +
         fmt::format("front              {} solved, {} measured, {} of them now\n",
                     Counted(std::ssize(curve.front), "plan"), std::ssize(curve.plans), report.measured) +
         NotesText(curve.notes) + StagesText(report.stages) +
         fmt::format("plans              {}\ntable              {}\npage               {}\n",
                     (report.files.csv.parent_path() / "curve-plans" / "").string(), report.files.csv.string(),
                     report.files.html.string());
}

}  // namespace bitplan::cli
