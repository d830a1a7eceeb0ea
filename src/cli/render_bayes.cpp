#include <fmt/core.h>

#include <cmath>

#include "bitplan/core/counted.h"
#include "cli/console.h"
#include "cli/render.h"
#include "cli/render_parts.h"
#include "cli/table.h"

namespace bitplan::cli {

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
