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

double MeanAuroc(const BayesRow& row, bool epistemic) {
  double sum = 0.0;
  for (const auto& seed : row.seeds) sum += epistemic ? seed.auroc_epistemic : seed.auroc_aleatoric;
  return row.seeds.empty() ? 0.0 : sum / static_cast<double>(row.seeds.size());
}

Json WidthJson(int bits) { return bits == kFloatBits ? Json(nullptr) : Json(bits); }

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
  return {{"seed", seed.seed},
          {"stored_bytes", seed.stored_bytes},
          {"float_bytes", seed.float_bytes},
          {"auroc_aleatoric", seed.auroc_aleatoric},
          {"auroc_epistemic", seed.auroc_epistemic},
          {"splits", splits},
          {"widths", widths}};
}

std::string Percent(const std::map<std::string, BayesDrift>& values, const std::string& role) {
  const auto found = values.find(role);
  if (found == values.end()) return "";
  const BayesDrift& d = found->second;
  return fmt::format("{:+.1f}<br><small>[{:+.1f}, {:+.1f}]</small>", 100.0 * d.change, 100.0 * d.ci_low,
                     100.0 * d.ci_high);
}

Json DriftJson(const std::map<std::string, BayesDrift>& drifts) {
  Json json = Json::object();
  for (const auto& [role, d] : drifts)
    json[role] = {{"value", d.change}, {"ci95", {d.ci_low, d.ci_high}}, {"worst", d.worst}};
  return json;
}

std::string DropText(const BayesRow& row, const std::string& role) {
  const auto found = row.drops.find(role);
  if (found == row.drops.end()) return "";
  return fmt::format("{:+.2f}<br><small>[{:+.2f}, {:+.2f}]</small>", 100.0 * found->second.drop,
                     100.0 * found->second.ci_low, 100.0 * found->second.ci_high);
}

std::string Table(const BayesComparison& comparison) {
  std::string html = "<div class=scroll><table><tr><th>network</th><th>bits</th><th>bytes</th><th>smaller</th>";
  for (const auto& [role, data] : comparison.data) {
    if (role != "out-of-distribution") html += "<th>accuracy " + HtmlText(data) + "</th>";
    html += "<th>aleatoric " + HtmlText(data) + ", %</th><th>epistemic " + HtmlText(data) + ", %</th>";
  }
  html += "<th>drop, points</th><th>AUROC aleatoric</th><th>AUROC epistemic</th></tr>\n";
  for (const BayesRow& row : comparison.rows) {
    html += fmt::format("<tr><td>{}</td><td>{}</td><td>{:.0f}</td><td>{:.2f}</td>", HtmlText(row.name),
                        row.scheme.empty() ? "32" : fmt::format("{:.3g}", row.bits), MeanBytes(row, false),
                        MeanBytes(row, true) / std::max(1.0, MeanBytes(row, false)));
    for (const auto& [role, data] : comparison.data) {
      if (role != "out-of-distribution") html += fmt::format("<td>{:.2f}</td>", 100.0 * MeanAccuracy(row, role));
      if (row.scheme.empty()) {
        html += fmt::format("<td>{:.4f} nats</td><td>{:.4f} nats</td>",
                            Mean(row, role, [](const BayesMeasurement& m) { return m.aleatoric; }),
                            Mean(row, role, [](const BayesMeasurement& m) { return m.epistemic; }));
      } else {
        html += fmt::format("<td>{}</td><td>{}</td>", Percent(row.aleatoric_drift, role),
                            Percent(row.epistemic_drift, role));
      }
    }
    const auto auroc = [&](bool epistemic) {
      const double value = MeanAuroc(row, epistemic);
      return value < 0.0 ? std::string() : fmt::format("{:.4f}", value);
    };
    html += fmt::format("<td>{}</td><td>{}</td><td>{}</td></tr>\n", DropText(row, "all"), auroc(false), auroc(true));
  }
  return html + "</table></div>\n";
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
    if (!row.scheme.empty() && row.scheme != "plan" && std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  }
  std::string lines;
  for (std::size_t i = 0; i < names.size(); ++i) {
    drawing.data += "# " + names[i] + ": bits, largest change in per cent\n";
    for (const BayesRow& row : comparison.rows) {
      if (row.scheme + " " + row.stage + (row.sigma_scale == "linear" ? " (linear sigma)" : "") != names[i]) continue;
      double most = 0.0;
      for (const auto* drift : {&row.aleatoric_drift, &row.epistemic_drift}) {
        for (const auto& [role, value] : *drift) {
          if (role != "out-of-distribution") most = std::max(most, std::abs(value.worst));
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

std::string BayesJson(const BayesComparison& comparison) {
  Json rows = Json::array();
  for (const BayesRow& row : comparison.rows) {
    Json entry = {{"name", row.name}, {"scheme", row.scheme},  {"stage", row.stage}, {"sigma_scale", row.sigma_scale},
                  {"bits", row.bits}, {"seeds", Json::array()}};
    for (const BayesSeedResult& seed : row.seeds) entry["seeds"].push_back(SeedJson(seed));
    Json drops = Json::object();
    for (const auto& [role, drop] : row.drops) {
      drops[role] = {{"value", drop.drop}, {"ci95", {drop.ci_low, drop.ci_high}}};
    }
    entry["accuracy_drop"] = drops;
    entry["aleatoric_drift"] = DriftJson(row.aleatoric_drift);
    entry["epistemic_drift"] = DriftJson(row.epistemic_drift);
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
      "epistemic,"
      "auroc_aleatoric,auroc_epistemic\n";
  for (const BayesRow& row : comparison.rows) {
    for (const BayesSeedResult& seed : row.seeds) {
      for (const auto& [role, m] : seed.splits) {
        csv += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", row.name, row.scheme, row.stage,
                           row.sigma_scale, row.bits, seed.seed, seed.stored_bytes, seed.float_bytes, role,
                           m.metrics.accuracy, m.metrics.nll, m.metrics.ece, m.total, m.aleatoric, m.epistemic,
                           seed.auroc_aleatoric, seed.auroc_epistemic);
      }
    }
  }
  WriteFileAtomically(folder / "bayes.csv", csv);
  const std::string body = fmt::format(
      "<h1>{}: quantized Bayesian networks, {}</h1>\n<p>{} of the weights; accuracy and AUROC are means over the "
      "seeds. "
      "A change of uncertainty is that of its mean over the images against the float network of the same seed on the "
      "same "
      "draws, the mean over the seeds; 95 % interval by the jackknife over the draws. Drop: accuracy lost on clean and "
      "ambiguous images together, with its paired 95 % interval, images resampled with all of their labels.</p>\n",
      HtmlText(comparison.name), HtmlText(comparison.model), Counted(comparison.draws, "draw"));
  WriteFileAtomically(folder / "report.html",
                      HtmlPage(comparison.name, body + Table(comparison) + HtmlFigures(figures)));
  return {"bayes.json", "bayes.csv", "report.html"};
}

}  // namespace bitplan
