#include <fmt/core.h>
#include <fmt/ranges.h>

#include "bitplan/core/counted.h"
#include "cli/render.h"
#include "cli/table.h"

namespace bitplan::cli {
namespace {

using nlohmann::ordered_json;

std::string PercentText(double share) { return fmt::format("{:.1f} %", 100.0 * share); }

ordered_json SureBinJson(const pipeline::SureBin& bin) {
  return {{"low", bin.low},
          {"high", bin.high},
          {"widths", bin.widths},
          {"stated", bin.stated},
          {"returned", bin.returned.share},
          {"ci95", {bin.returned.ci_low, bin.returned.ci_high}}};
}

}  // namespace

std::string Text(const pipeline::SureReport& report) {
  Table table({">sure", ">widths", ">stated, mean", ">returned", ">95 % interval"});
  const auto row = [&](const std::string& name, const pipeline::SureBin& bin) {
    table.Row({name, Grouped(bin.widths), PercentText(bin.stated), PercentText(bin.returned.share),
               fmt::format("{:.1f} to {:.1f}", 100.0 * bin.returned.ci_low, 100.0 * bin.returned.ci_high)});
  };
  for (const auto& bin : report.bins) {
    row(bin.low >= 1.0 ? std::string("100 %") : fmt::format("{:g} to {:g} %", 100.0 * bin.low, 100.0 * bin.high), bin);
  }
  table.Rule();
  row("all", report.all);
  return table.Render() + "\n" + fmt::format("model              {}\n", report.model) +
         fmt::format("allocator          {}, average bits {}\n", report.allocator, fmt::join(report.budgets, ", ")) +
         fmt::format("calibration seeds  {} to {}: widths stated with one of them, looked for with the {} others\n",
                     report.seeds.front(), report.seeds.back(), report.seeds.size() - 1) +
         fmt::format("widths             of {}, {} and {}\n", Counted(std::ssize(report.layers), "layer"),
                     Counted(std::ssize(report.budgets), "budget"), Counted(std::ssize(report.seeds), "seed")) +
         "interval           over seeds, Student's t on the jackknife\n";
}

nlohmann::ordered_json Json(const pipeline::SureReport& report) {
  auto bins = ordered_json::array(), answers = ordered_json::array();
  for (const auto& bin : report.bins) bins.push_back(SureBinJson(bin));
  for (const auto& answer : report.answers) {
    answers.push_back({{"calibration_seed", answer.calibration_seed},
                       {"budget", answer.budget},
                       {"bits", answer.bits},
                       {"confidence", answer.confidence}});
  }
  return {{"model", report.model},
          {"allocator", report.allocator},
          {"layers", report.layers},
          {"budgets", report.budgets},
          {"calibration_seeds", report.seeds},
          {"bins", bins},
          {"all", SureBinJson(report.all)},
          {"answers", answers}};
}

}  // namespace bitplan::cli
