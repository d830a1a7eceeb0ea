#include "bitplan/report/bayesian.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bitplan/core/counted.h"
#include "bitplan/io/files.h"
#include "io/json_text.h"
#include "report/gnuplot.h"
#include "report/html.h"

namespace bitplan {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kBins = 40;

double Mean(const BayesRow& row, const std::string& role, double (*of)(const BayesMeasurement&)) {
  double sum = 0.0;
  int count = 0;
  for (const BayesSeedResult& seed : row.seeds) {
    const auto found = seed.splits.find(role);
    if (found == seed.splits.end()) continue;
    sum += of(found->second);
    ++count;
  }
  return count == 0 ? 0.0 : sum / count;
}

double MeanBytes(const BayesRow& row, bool of_float) {
  double sum = 0.0;
  for (const auto& seed : row.seeds) sum += static_cast<double>(of_float ? seed.float_bytes : seed.stored_bytes);
  return row.seeds.empty() ? 0.0 : sum / static_cast<double>(row.seeds.size());
}

Json WidthJson(int bits) { return bits == kFloatBits ? Json(nullptr) : Json(bits); }

// A bound that is not known becomes null.
Json CapsJson(const std::vector<BayesCapCheck>& caps) {
  Json json = Json::array();
  for (const BayesCapCheck& check : caps) {
    const auto bounded = [](const BayesCapCheck::Bounded& b) {
      return Json{{"value", b.value}, {"at_most", b.at_most}};
    };
    json.push_back({{"budget", check.budget},
                    {"confirming", check.confirming},
                    {"kind", check.kind},
                    {"images", check.images},
                    {"accuracy_drop", bounded(check.accuracy_drop)},
                    {"aleatoric_drift", bounded(check.aleatoric_drift)},
                    {"epistemic_drift", bounded(check.epistemic_drift)}});
  }
  return json;
}

Json SeedJson(const BayesSeedResult& seed) {
  Json splits = Json::object(), widths = Json::array();
  for (const auto& [role, m] : seed.splits) {
    splits[role] = {{"accuracy", m.metrics.accuracy}, {"nll", m.metrics.nll}, {"brier", m.metrics.brier},
                    {"ece", m.metrics.ece},           {"total", m.total},     {"aleatoric", m.aleatoric},
                    {"epistemic", m.epistemic}};
  }
  for (const BayesWidths& w : seed.widths) {
    widths.push_back({{"mean", WidthJson(w.mean)}, {"sigma", WidthJson(w.sigma)}, {"sample", WidthJson(w.sample)}});
  }
  const auto auroc = [&](const char* role) {
    const auto found = seed.auroc.find(role);
    return found == seed.auroc.end() ? -1.0 : found->second;
  };
  Json json = {{"seed", seed.seed},
               {"stored_bytes", seed.stored_bytes},
               {"float_bytes", seed.float_bytes},
               {"auroc_aleatoric", auroc("ambiguous")},
               {"auroc_epistemic", auroc("out-of-distribution")},
               {"auroc", seed.auroc},
               {"splits", splits},
               {"widths", widths}};
  if (!seed.caps.empty()) json["caps"] = CapsJson(seed.caps);
  return json;
}

// The interval over the seeds, null where there is one seed.
Json SeedsInterval(const MeanOverSeeds& over) {
  return over.ci95 ? Json::array({over.ci95->first, over.ci95->second}) : Json(nullptr);
}

Json OverJson(const std::map<std::string, MeanOverSeeds>& values) {
  Json json = Json::object();
  for (const auto& [role, over] : values) {
    json[role] = {{"value", over.mean}, {"seeds", over.values}, {"seeds_ci95", SeedsInterval(over)}};
  }
  return json;
}

Json DriftJson(const std::map<std::string, BayesDrift>& drifts) {
  Json json = Json::object();
  for (const auto& [role, d] : drifts) {
    json[role] = {{"value", d.change},
                  {"ci95", {d.ci_low, d.ci_high}},
                  {"worst", d.worst},
                  {"seeds", d.seeds.values},
                  {"seeds_ci95", SeedsInterval(d.seeds)}};
  }
  return json;
}

// Puts the four kinds of change into `json`.
void PutChanges(const BayesChanges& changes, Json& json) {
  Json drops = Json::object();
  for (const auto& [role, d] : changes.drops) {
    drops[role] = {{"value", d.drop},
                   {"ci95", {d.ci_low, d.ci_high}},
                   {"seeds", d.seeds.values},
                   {"seeds_ci95", SeedsInterval(d.seeds)}};
  }
  json["accuracy_drop"] = std::move(drops);
  json["aleatoric_drift"] = DriftJson(changes.aleatoric);
  json["epistemic_drift"] = DriftJson(changes.epistemic);
  json["auroc_change"] = OverJson(changes.auroc);
}

const BayesRow* ControlOf(const BayesComparison& comparison) {
  const auto found = std::ranges::find(comparison.rows, "float", &BayesRow::scheme);
  return found == comparison.rows.end() ? nullptr : &*found;
}

// "+0.12" and, smaller, "[+0.01, +0.23]".
std::string Cell(double value, double low, double high, double unit, int decimals) {
  return fmt::format("{0:+.{3}f}<br><small>[{1:+.{3}f}, {2:+.{3}f}]</small>", unit * value, unit * low, unit * high,
                     decimals);
}
std::string Cell(const MeanOverSeeds& over, double unit, int decimals) {
  return over.ci95 ? Cell(over.mean, over.ci95->first, over.ci95->second, unit, decimals)
                   : fmt::format("{:+.{}f}", unit * over.mean, decimals);
}

// Means over the seeds: accuracy, uncertainty and AUROC of every network, changes where there are any.
std::string Table(const BayesComparison& comparison) {
  std::string html = "<div class=scroll><table><tr><th>network</th><th>bits</th><th>bytes</th><th>smaller</th>";
  for (const auto& [role, data] : comparison.data) {
    if (IsLabelledRole(role)) html += "<th>accuracy " + HtmlText(data) + "</th>";
    html += "<th>aleatoric " + HtmlText(data) + ", %</th><th>epistemic " + HtmlText(data) + ", %</th>";
  }
  html += "<th>drop, points</th>";
  for (const auto& [role, data] : comparison.data) {
    if (role != "clean") html += "<th>AUROC " + HtmlText(data) + "</th>";
  }
  html += "</tr>\n";
  for (const BayesRow& row : comparison.rows) {
    html += fmt::format("<tr><td>{}</td><td>{}</td><td>{:.0f}</td><td>{:.2f}</td>", HtmlText(row.name),
                        row.scheme.empty() ? "32" : fmt::format("{:.3g}", row.bits), MeanBytes(row, false),
                        MeanBytes(row, true) / std::max(1.0, MeanBytes(row, false)));
    for (const auto& [role, data] : comparison.data) {
      if (IsLabelledRole(role)) html += fmt::format("<td>{:.2f}</td>", 100.0 * MeanAccuracy(row, role));
      if (row.scheme.empty()) {
        html += fmt::format("<td>{:.4f} nats</td><td>{:.4f} nats</td>",
                            Mean(row, role, [](const BayesMeasurement& m) { return m.aleatoric; }),
                            Mean(row, role, [](const BayesMeasurement& m) { return m.epistemic; }));
      } else {
        for (const auto* drifts : {&row.from_float.aleatoric, &row.from_float.epistemic}) {
          const BayesDrift& d = drifts->at(role);
          html += "<td>" + Cell(d.change, d.ci_low, d.ci_high, 100.0, 1) + "</td>";
        }
      }
    }
    const auto all = row.from_float.drops.find("all");
    html += all == row.from_float.drops.end()
                ? "<td></td>"
                : "<td>" + Cell(all->second.drop, all->second.ci_low, all->second.ci_high, 100.0, 2) + "</td>";
    const auto auroc = AurocOf(row);
    for (const auto& [role, data] : comparison.data) {
      if (role != "clean") html += fmt::format("<td>{:.4f}</td>", auroc.at(role).mean);
    }
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

// Changes against one network with their intervals over the seeds.
std::string SeedsTable(const BayesComparison& comparison, BayesChanges BayesRow::*changes_of) {
  std::string html = "<div class=scroll><table><tr><th>network</th><th>drop, points</th>";
  for (const auto& [role, data] : comparison.data) {
    html += "<th>aleatoric " + HtmlText(data) + ", %</th><th>epistemic " + HtmlText(data) + ", %</th>";
  }
  for (const auto& [role, data] : comparison.data) {
    if (role != "clean") html += "<th>change of AUROC " + HtmlText(data) + "</th>";
  }
  html += "</tr>\n";
  for (const BayesRow& row : comparison.rows) {
    const BayesChanges& changes = row.*changes_of;
    if (changes.drops.empty()) continue;
    html += "<tr><td>" + HtmlText(row.name) + "</td><td>" + Cell(changes.drops.at("all").seeds, 100.0, 2) + "</td>";
    for (const auto& [role, data] : comparison.data) {
      html += "<td>" + Cell(changes.aleatoric.at(role).seeds, 100.0, 1) + "</td><td>" +
              Cell(changes.epistemic.at(role).seeds, 100.0, 1) + "</td>";
    }
    for (const auto& [role, data] : comparison.data) {
      if (role != "clean") html += "<td>" + Cell(changes.auroc.at(role), 1.0, 4) + "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

// name,against,quantity,role,value, interval over images or draws, seeds, interval over seeds, worst seed.
std::string ChangesCsv(const BayesComparison& comparison) {
  std::string csv = "name,against,quantity,role,value,ci_low,ci_high,seeds,seeds_ci_low,seeds_ci_high\n";
  const BayesRow* control = ControlOf(comparison);
  const auto line = [&](const BayesRow& row, const std::string& against, const char* quantity, const std::string& role,
                        double value, const std::string& interval, const MeanOverSeeds& over) {
    csv +=
        fmt::format("{},{},{},{},{},{},{},{}\n", row.name, against, quantity, role, value, interval, over.values.size(),
                    over.ci95 ? fmt::format("{},{}", over.ci95->first, over.ci95->second) : std::string(","));
  };
  for (const BayesRow& row : comparison.rows) {
    for (const auto& [role, over] : AurocOf(row)) line(row, "", "auroc", role, over.mean, ",", over);
    const auto put = [&](const BayesChanges& changes, const std::string& against) {
      for (const auto& [role, d] : changes.drops) {
        line(row, against, "accuracy_drop", role, d.drop, fmt::format("{},{}", d.ci_low, d.ci_high), d.seeds);
      }
      for (const auto& [quantity, drifts] :
           {std::pair<const char*, const std::map<std::string, BayesDrift>&>{"aleatoric_drift", changes.aleatoric},
            {"epistemic_drift", changes.epistemic}}) {
        for (const auto& [role, d] : drifts) {
          line(row, against, quantity, role, d.change, fmt::format("{},{}", d.ci_low, d.ci_high), d.seeds);
        }
      }
      for (const auto& [role, over] : changes.auroc) line(row, against, "auroc_change", role, over.mean, ",", over);
    };
    put(row.from_float, "float");
    if (control != nullptr) put(row.from_control, control->name);
  }
  return csv;
}

// Shares of images per bin, float and quantized side by side.
std::string Histogram(const torch::Tensor& before, const torch::Tensor& after, double top) {
  std::string lines;
  const auto share = [&](const torch::Tensor& values) {
    return (values.clamp(0.0, top).to(torch::kFloat32).histc(kBins, 0.0, top) / values.numel()).contiguous();
  };
  const torch::Tensor a = share(before), b = share(after);
  for (int bin = 0; bin < kBins; ++bin) {
    lines += fmt::format("{} {} {}\n", top * (bin + 0.5) / kBins, a[bin].item<float>(), b[bin].item<float>());
  }
  return lines;
}

std::vector<Drawing> Histograms(const BayesComparison& comparison) {
  std::vector<Drawing> drawings;
  for (const bool epistemic : {false, true}) {
    Drawing drawing;
    drawing.name = epistemic ? "epistemic" : "aleatoric";
    drawing.caption = fmt::format("{} uncertainty of every image, float (filled) and {} (line), first seed.",
                                  epistemic ? "Epistemic" : "Aleatoric", comparison.pictured);
    double top = 0.0;
    for (const BayesHistogram& h : comparison.histograms) {
      top = std::max(top, (epistemic ? h.float_epistemic : h.float_aleatoric).max().item<double>());
    }
    if (!(top > 0.0)) continue;
    int index = 0;
    std::string plots;
    for (const BayesHistogram& h : comparison.histograms) {
      drawing.data += "# " + h.data + ": nats, share of images in float, share quantized\n";
      drawing.data += Histogram(epistemic ? h.float_epistemic : h.float_aleatoric,
                                epistemic ? h.quantized_epistemic : h.quantized_aleatoric, top) +
                      "\n\n";
      plots += fmt::format(
          "set title {}\nplot '{}.dat' index {} using 1:($2 > 0 ? $2 : 1e-5) with boxes fs solid 0.25 noborder lc rgb "
          "'#1f5fa8' title 'float', '' index {} using 1:($3 > 0 ? $3 : 1e-5) with histeps lw 2 lc rgb '#a03030' title "
          "'quantized'\n",
          GnuplotText(h.data), drawing.name, index, index);
      ++index;
    }
    drawing.script =
        GnuplotHeader(drawing.name, 900, 60 + 220 * index) +
        fmt::format(
            "set multiplot layout {},1\nset logscale y\nset yrange [1e-4:1]\nset xrange [0:{}]\nset boxwidth {}\n"
            "set xlabel 'nats'\nset ylabel 'share of images'\nset key inside right top\nset format y '%g'\n{}unset "
            "multiplot\n",
            index, top, top / kBins, plots);
    drawings.push_back(std::move(drawing));
  }
  return drawings;
}

// Accuracy lost and uncertainty moved, against the bits, a line per scheme and stage.
Drawing Fidelity(const BayesComparison& comparison) {
  Drawing drawing{
      "fidelity",
      "Largest change of mean uncertainty among the splits with labels, against bits, of the seed that changed "
      "most.",
      "", ""};
  std::vector<std::string> names;
  for (const BayesRow& row : comparison.rows) {
    const std::string name = row.scheme + " " + row.stage + (row.sigma_scale == "linear" ? " (linear sigma)" : "");
    const bool of_a_scheme = !row.scheme.empty() && row.scheme != "plan" && row.scheme != "float";
    if (of_a_scheme && std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  }
  std::string lines;
  for (std::size_t i = 0; i < names.size(); ++i) {
    drawing.data += "# " + names[i] + ": bits, largest change in per cent\n";
    for (const BayesRow& row : comparison.rows) {
      if (row.scheme + " " + row.stage + (row.sigma_scale == "linear" ? " (linear sigma)" : "") != names[i]) continue;
      double most = 0.0;
      for (const auto* drift : {&row.from_float.aleatoric, &row.from_float.epistemic}) {
        for (const auto& [role, value] : *drift) {
          if (IsLabelledRole(role)) most = std::max(most, std::abs(value.worst));
        }
      }
      drawing.data += fmt::format("{} {}\n", row.bits, 100.0 * most);
    }
    drawing.data += "\n\n";
    lines += fmt::format("{}'fidelity.dat' index {} using 1:2 with linespoints lw 2 pt {} title {}",
                         i == 0 ? "" : ", \\\n  ", i, i + 4, GnuplotText(names[i]));
  }
  if (names.empty()) drawing.name.clear();
  drawing.script = GnuplotHeader("fidelity") +
                   "set logscale y\nset xlabel 'bits'\nset ylabel 'change of mean uncertainty, %'\nset format y '%g'\n"
                   "set xrange [1.5:8.5]\nplot 3 with lines dt 3 lc rgb '#888888' title '3 %', \\\n  " +
                   lines + "\n";
  return drawing;
}

}  // namespace

double MeanAccuracy(const BayesRow& row, const std::string& role) {
  return Mean(row, role, [](const BayesMeasurement& m) { return m.metrics.accuracy; });
}

bool IsLabelledRole(const std::string& role) { return role == "clean" || role == "ambiguous"; }

std::map<std::string, MeanOverSeeds> AurocOf(const BayesRow& row) {
  std::map<std::string, std::vector<double>> values;
  for (const BayesSeedResult& seed : row.seeds) {
    for (const auto& [role, value] : seed.auroc) values[role].push_back(value);
  }
  std::map<std::string, MeanOverSeeds> over;
  for (auto& [role, of_seeds] : values) over[role] = OverSeeds(std::move(of_seeds));
  return over;
}

std::string BayesJson(const BayesComparison& comparison) {
  Json rows = Json::array();
  for (const BayesRow& row : comparison.rows) {
    Json entry = {{"name", row.name}, {"scheme", row.scheme},  {"stage", row.stage}, {"sigma_scale", row.sigma_scale},
                  {"bits", row.bits}, {"seeds", Json::array()}};
    for (const BayesSeedResult& seed : row.seeds) entry["seeds"].push_back(SeedJson(seed));
    entry["auroc"] = OverJson(AurocOf(row));
    PutChanges(row.from_float, entry);
    if (!row.from_control.drops.empty()) PutChanges(row.from_control, entry["against_control"]);
    rows.push_back(std::move(entry));
  }
  Json data = Json::object();
  for (const auto& [role, name] : comparison.data) data[role] = name;
  const Json json = {{"name", comparison.name},
                     {"model", comparison.model},
                     {"layers", comparison.layers},
                     {"data", data},
                     {"images", comparison.images},
                     {"draws", comparison.draws},
                     {"control", ControlOf(comparison) == nullptr ? Json(nullptr) : Json(ControlOf(comparison)->name)},
                     {"rows", rows}};
  return JsonText(json, 2) + "\n";
}

std::vector<std::string> WriteBayesComparison(const BayesComparison& comparison, const std::filesystem::path& folder) {
  auto drawings = Histograms(comparison);
  drawings.insert(drawings.begin(), Fidelity(comparison));
  const auto figures = Draw(drawings, folder / "plots");
  WriteFileAtomically(folder / "bayes.json", BayesJson(comparison));
  std::string csv =
      "name,scheme,stage,sigma_scale,bits,seed,stored_bytes,float_bytes,role,accuracy,nll,ece,total,aleatoric,"
      "epistemic,auroc_aleatoric,auroc_epistemic,auroc\n";
  for (const BayesRow& row : comparison.rows) {
    for (const BayesSeedResult& seed : row.seeds) {
      for (const auto& [role, m] : seed.splits) {
        const auto auroc = [&, &seed = seed](const std::string& of) {
          const auto found = seed.auroc.find(of);
          return found == seed.auroc.end() ? -1.0 : found->second;
        };
        csv += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", row.name, row.scheme, row.stage,
                           row.sigma_scale, row.bits, seed.seed, seed.stored_bytes, seed.float_bytes, role,
                           m.metrics.accuracy, m.metrics.nll, m.metrics.ece, m.total, m.aleatoric, m.epistemic,
                           auroc("ambiguous"), auroc("out-of-distribution"), auroc(role));
      }
    }
  }
  WriteFileAtomically(folder / "bayes.csv", csv);
  WriteFileAtomically(folder / "bayes-changes.csv", ChangesCsv(comparison));
  const auto seeds = std::ssize(comparison.rows.front().seeds);
  std::string body = fmt::format(
      "<h1>{}: quantized Bayesian networks, {}</h1>\n<p>{}, {} of the weights; accuracy and AUROC are means over the "
      "seeds. A change of uncertainty is that of its mean over the images against the float network of the same seed "
      "on "
      "the same draws, the mean over the seeds; 95 % interval by the jackknife over the draws. Drop: accuracy lost on "
      "clean and ambiguous images together, with its paired 95 % interval over images and their draws. These intervals "
      "are about the networks of these seeds.</p>\n",
      HtmlText(comparison.name), HtmlText(comparison.model), Counted(seeds, "seed"), Counted(comparison.draws, "draw"));
  body += Table(comparison);
  const std::string over =
      seeds > 1 ? "95 % intervals over the seeds, by Student's t: what networks of other seeds would have given on "
                  "average."
                : "One seed: there is no interval over seeds.";
  body += "<h2>Changes against the float network, over the seeds</h2>\n<p>" + over + "</p>\n" +
          SeedsTable(comparison, &BayesRow::from_float);
  if (const BayesRow* control = ControlOf(comparison)) {
    body += "<h2>Changes against " + HtmlText(control->name) +
            ", over the seeds</h2>\n<p>The float network after the fine-tuning that the others had, with nothing "
            "rounded. " +
            over + "</p>\n" + SeedsTable(comparison, &BayesRow::from_control);
  }
  WriteFileAtomically(folder / "report.html", HtmlPage(comparison.name, body + HtmlFigures(figures)));
  return {"bayes.json", "bayes.csv", "bayes-changes.csv", "report.html"};
}

}  // namespace bitplan
