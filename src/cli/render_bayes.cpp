#include <fmt/core.h>

#include <cmath>

#include "bitplan/core/counted.h"
#include "cli/console.h"
#include "cli/render.h"
#include "cli/render_parts.h"
#include "cli/table.h"

namespace bitplan::cli {

namespace {

// "+0.12±0.34": a mean and half its interval over the seeds.
std::string WithHalf(const MeanOverSeeds& over, double unit, int decimals) {
  const auto mean = fmt::format("{:+.{}f}", unit * over.mean, decimals);
  if (!over.ci95) return mean;
  return mean + fmt::format("±{:.{}f}", unit * (over.ci95->second - over.ci95->first) / 2.0, decimals);
}

// Changes of every row against one network, with intervals over the seeds and, of accuracy, over images and draws.
std::string SeedsText(const BayesComparison& comparison, BayesChanges BayesRow::*changes_of) {
  std::vector<std::string> titles = {"network", ">drop, points"};
  for (const auto& [role, data] : comparison.data) titles.push_back(">alea./epi. " + data);
  for (const auto& [role, data] : comparison.data) {
    if (role != "clean") titles.push_back(">AUROC " + data);
  }
  Table table(titles);
  for (const auto& row : comparison.rows) {
    const BayesChanges& changes = row.*changes_of;
    if (changes.drops.empty()) continue;
    std::vector<std::string> cells = {row.name, WithHalf(changes.drops.at("all").seeds, 100.0, 2)};
    for (const auto& [role, data] : comparison.data) {
      cells.push_back(WithHalf(changes.aleatoric.at(role).seeds, 100.0, 1) + " / " +
                      WithHalf(changes.epistemic.at(role).seeds, 100.0, 1) + " %");
    }
    for (const auto& [role, data] : comparison.data) {
      if (role != "clean") cells.push_back(WithHalf(changes.auroc.at(role), 1.0, 4));
    }
    table.Row(std::move(cells));
  }
  return table.Render();
}

}  // namespace

std::string Text(const pipeline::BayesReport& report) {
  const auto& comparison = report.comparison;
  const auto drift = [](const std::map<std::string, BayesDrift>& drifts, const std::string& role) {
    const BayesDrift& d = drifts.at(role);
    return fmt::format("{:+.1f}±{:.1f}", 100.0 * d.change, 50.0 * (d.ci_high - d.ci_low));
  };
  std::vector<std::string> titles = {"network", ">bytes", ">smaller"};
  for (const auto& [role, data] : comparison.data) {
    if (IsLabelledRole(role)) titles.push_back(">acc. " + data);
  }
  titles.emplace_back(">drop, points");
  for (const auto& [role, data] : comparison.data) titles.push_back(">alea./epi. " + data);
  for (const auto& [role, data] : comparison.data) {
    if (role != "clean") titles.push_back(">AUROC " + data);
  }
  Table table(titles);
  std::string control;
  for (const auto& row : comparison.rows) {
    if (row.scheme == "float") control = row.name;
    double bytes = 0.0, float_bytes = 0.0;
    const auto n = static_cast<double>(row.seeds.size());
    for (const auto& seed : row.seeds) {
      bytes += static_cast<double>(seed.stored_bytes) / n;
      float_bytes += static_cast<double>(seed.float_bytes) / n;
    }
    std::vector<std::string> cells = {row.name, Grouped(std::llround(bytes)),
                                      fmt::format("{:.2f}", float_bytes / bytes)};
    for (const auto& [role, data] : comparison.data) {
      if (IsLabelledRole(role)) cells.push_back(fmt::format("{:.2f}", 100.0 * MeanAccuracy(row, role)));
    }
    const auto all = row.from_float.drops.find("all");
    cells.push_back(all == row.from_float.drops.end()
                        ? ""
                        : fmt::format("{:+.2f} [{:+.2f}, {:+.2f}]", 100.0 * all->second.drop,
                                      100.0 * all->second.ci_low, 100.0 * all->second.ci_high));
    for (const auto& [role, data] : comparison.data) {
      if (!row.scheme.empty()) {
        cells.push_back(drift(row.from_float.aleatoric, role) + " / " + drift(row.from_float.epistemic, role) + " %");
        continue;
      }
      double aleatoric = 0.0, epistemic = 0.0;
      for (const auto& seed : row.seeds) {
        aleatoric += seed.splits.at(role).aleatoric / n;
        epistemic += seed.splits.at(role).epistemic / n;
      }
      cells.push_back(fmt::format("{:.4f} / {:.4f} nats", aleatoric, epistemic));
    }
    const auto auroc = AurocOf(row);
    for (const auto& [role, data] : comparison.data) {
      if (role != "clean") cells.push_back(fmt::format("{:.4f}", auroc.at(role).mean));
    }
    table.Row(std::move(cells));
  }
  const auto seeds = std::ssize(comparison.rows.front().seeds);
  auto text = table.Render() + "\n";
  const std::string half = seeds > 1 ? "± half the 95 % interval over the seeds, by Student's t"
                                     : "one seed: there is no interval over seeds";
  if (seeds > 1) text += "changes against float, " + half + "\n" + SeedsText(comparison, &BayesRow::from_float) + "\n";
  if (!control.empty()) {
    text += fmt::format("changes against {}, the float network fine-tuned as the others; {}\n", control, half) +
            SeedsText(comparison, &BayesRow::from_control) + "\n";
  }
  text += fmt::format("model              {}, {} of the weights, {}\n", comparison.model,
                      Counted(comparison.draws, "draw"), Counted(seeds, "seed"));
  text +=
      "drop               accuracy lost against float on all labelled images, paired 95 % interval over images and\n"
      "                   their draws, positive: worse\n"
      "alea./epi.         change of mean aleatoric / epistemic uncertainty against float on the same draws,\n"
      "                   mean over the seeds, ± half the 95 % interval over draws\n"
      "AUROC              ambiguous against clean by aleatoric, unknown against both by epistemic uncertainty\n";
  if (seeds == 1) text += "seeds              one: there is no interval over seeds\n";
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
