#include "report/plots.h"

#include <fmt/format.h>

#include <algorithm>

#include "bitplan/core/figures.h"

namespace bitplan {
namespace {

std::vector<std::string> Allocators(const Comparison& comparison) {
  std::vector<std::string> names;
  for (const ComparedPlan& plan : comparison.plans) {
    if (std::find(names.begin(), names.end(), plan.allocator) == names.end()) names.push_back(plan.allocator);
  }
  return names;
}

// What stands along the axes of a drawing of curves.
enum class Axis { kAverageBits, kBytes, kBops };
constexpr const char* kSpentWords[] = {"average bits", "stored bytes", "bit operations"};

double SpentBy(const ComparedPlan& plan, Axis axis) {
  if (axis == Axis::kBytes) return static_cast<double>(plan.achieved.stored_bytes);
  return axis == Axis::kBops ? plan.bops : plan.achieved.average_bits;
}

enum class Gained { kAccuracy, kNll };

// One block of data per allocator, separated by two empty lines as gnuplot wants it; the best seed is not picked: every
// seed is a point. A ring marks the plans that are recommended.
Drawing Curves(const Comparison& comparison, const std::string& name, Axis axis, Gained gained) {
  Drawing drawing{name, "", "", ""};
  const bool accuracy = gained == Gained::kAccuracy, counted = axis != Axis::kAverageBits;
  const char* const words = kSpentWords[static_cast<int>(axis)];
  const std::string score = FigureTitle(comparison.score);
  const auto point = [&](const ComparedPlan& plan) {
    const double float_accuracy = 100.0 * comparison.float_model.accuracy;
    const std::string x = counted ? fmt::format("{:.0f}", SpentBy(plan, axis)) : fmt::format("{}", SpentBy(plan, axis));
    return accuracy ? fmt::format("{} {} {} {}\n", x, 100.0 * plan.metrics.accuracy,
                                  float_accuracy - 100.0 * plan.drop.ci_high, float_accuracy - 100.0 * plan.drop.ci_low)
                    : fmt::format("{} {}\n", x, plan.metrics.nll);
  };
  double least = 0.0, most = 0.0;  // on the x axis
  for (const ComparedPlan& plan : comparison.plans) {
    if (!plan.failure.empty()) continue;
    const double x = SpentBy(plan, axis);
    least = most > 0.0 ? std::min(least, x) : x;
    most = std::max(most, x);
  }
  const auto names = Allocators(comparison);
  std::string lines;
  for (std::size_t i = 0; i < names.size(); ++i) {
    drawing.data += fmt::format("# {}: {}, value, low, high\n", names[i], words);
    for (const ComparedPlan& plan : comparison.plans) {
      if (plan.allocator == names[i] && plan.failure.empty()) drawing.data += point(plan);
    }
    drawing.data += "\n\n";
    const bool ours = std::none_of(comparison.plans.begin(), comparison.plans.end(), [&](const ComparedPlan& plan) {
      return plan.allocator == names[i] && plan.baseline;
    });
    const std::string style = fmt::format("lc {} pt {} lw {}", i + 1, i + 4, ours ? 2 : 1);
    lines += fmt::format("{}'{}.dat' index {} using 1:2 with linespoints {} dt {} title {}", i == 0 ? "" : ", \\\n  ",
                         name, i, style, ours ? 1 : 2, GnuplotText(names[i]));
    if (accuracy) {
      lines += fmt::format(", \\\n  '{}.dat' index {} using 1:2:3:4 with yerrorbars {} notitle", name, i, style);
    }
  }
  if (!comparison.recommended.budgets.empty()) {
    drawing.data += "# recommended\n";
    for (const std::size_t index : comparison.recommended.budgets) drawing.data += point(comparison.plans[index]);
    lines += fmt::format(
        ", \\\n  '{}.dat' index {} using 1:2 with points pt 6 ps 2.4 lw 2 lc rgb '#222222' title "
        "'recommended'",
        name, names.size());
  }
  drawing.script =
      GnuplotHeader(name) +
      (counted ? fmt::format("set logscale x 2\nset format x '%.1s %c{}'\nset xlabel '{}'\n",
                             axis == Axis::kBytes ? "B" : "", words)
               : "set xlabel 'average bits per weight'\n") +
      (counted ? fmt::format("set xrange [{}:{}]\n", 0.9 * least, 1.1 * most)
               : fmt::format("set xrange [{}:{}]\n", least - 0.1, most + 0.1)) +
      "set ylabel " +
      GnuplotText(accuracy ? score + (FindFigureKind(comparison.score).share ? ", %" : "") : "NLL, nats per sample") +
      "\n";
  const double level = accuracy ? 100.0 * comparison.float_model.accuracy : comparison.float_model.nll;
  drawing.script += fmt::format("plot {} with lines lc rgb '#888888' dt 3 title 'float', \\\n  {}\n", level, lines);
  drawing.caption =
      accuracy ? fmt::format(
                     "{} against {}; bars are paired 95 % intervals of the drop from the float "
                     "network, over seeds too where there are several. Baselines are dashed; rings: recommended.",
                     score, words)
               : fmt::format("Negative log-likelihood against {}. Baselines are dashed; rings: recommended.", words);
  return drawing;
}

Drawing Prediction(const Comparison& comparison) {
  Drawing drawing{"prediction",
                  "Loss rise that the recipe's sensitivity metric predicts, against the measured one (with "
                  "corrections, on the verification split), every plan a point; the line is equality.",
                  "# predicted nats, measured nats\n", ""};
  for (const ComparedPlan& plan : comparison.plans) {
    const double measured = plan.metrics.nll - comparison.float_model.nll;
    if (plan.failure.empty() && measured > 0.0 && plan.common_rise > 0.0) {
      drawing.data += fmt::format("{} {}\n", plan.common_rise, measured);
    }
  }
  if (drawing.data.find('\n') + 1 == drawing.data.size()) drawing.name.clear();  // nothing but the heading
  drawing.script =
      GnuplotHeader("prediction", 640, 520) +
      "set logscale xy\nset format '%g'\nset xlabel 'predicted rise, nats per sample'\n"
      "set ylabel 'measured rise, nats per sample'\nunset key\n"
      "plot 'prediction.dat' using 1:2 with points pt 6 lc rgb '#1f5fa8', x with lines lc rgb '#888888' dt 3\n";
  return drawing;
}

Drawing Sigmas(const Comparison& comparison) {
  Drawing drawing{
      "sigma",
      "Standard deviation that the data alone (without the prior) leave to the weights of every layer: box from "
      "the 25th to the 75th percentile, whiskers from the 5th to the 95th, in powers of two.",
      "# layer, p5, p25, p50, p75, p95 of log2 sigma\n", ""};
  std::string labels;
  int position = 0;
  for (const LayerSummary& layer : comparison.layers) {
    if (layer.log2_sigma.size() != 101) continue;
    drawing.data += fmt::format("{} {} {} {} {} {}\n", position, layer.log2_sigma[5], layer.log2_sigma[25],
                                layer.log2_sigma[50], layer.log2_sigma[75], layer.log2_sigma[95]);
    labels += fmt::format("{}{} {}", position == 0 ? "" : ", ", GnuplotText(layer.name), position);
    ++position;
  }
  drawing.script =
      GnuplotHeader("sigma") +
      fmt::format(
          "set xtics ({}) rotate by -60 noenhanced\nset xrange [-1:{}]\nset ylabel 'log2 sigma, without prior'\n"
          "unset key\nset boxwidth 0.5\nset style fill solid 0.3\n"
          "plot 'sigma.dat' using 1:3:2:6:5 with candlesticks lc rgb '#1f5fa8' whiskerbars, "
          "'' using 1:4:4:4:4 with candlesticks lc rgb '#a03030' lw 2\n",
          labels, position);
  if (position == 0) drawing.name.clear();
  return drawing;
}

// A map of bits: plans down, layers across.
Drawing Bits(const Comparison& comparison) {
  Drawing drawing{"bits", "Bits of every layer in every plan (the first seed of random allocators).",
                  "# layer, plan, bits\n", ""};
  std::string rows, columns;
  int row = 0;
  for (const ComparedPlan& plan : comparison.plans) {
    if (!plan.failure.empty() || (plan.random && plan.seed != comparison.plans.front().seed)) continue;
    for (std::size_t l = 0; l < plan.bits.size(); ++l) drawing.data += fmt::format("{} {} {}\n", l, row, plan.bits[l]);
    rows += fmt::format("{}{} {}", row == 0 ? "" : ", ",
                        GnuplotText(fmt::format("{} {}", plan.allocator, plan.budget.Name())), row);
    ++row;
  }
  for (std::size_t l = 0; l < comparison.layers.size(); ++l) {
    columns += fmt::format("{}{} {}", l == 0 ? "" : ", ", GnuplotText(comparison.layers[l].name), l);
  }
  drawing.script =
      GnuplotHeader("bits", 900, 140 + 17 * row) +
      fmt::format(
          "set xtics ({}) rotate by -60 noenhanced\nset ytics ({}) noenhanced\nset yrange [{}:-0.5]\n"
          "set xrange [-0.5:{}]\nset cbrange [0:8]\nset palette defined (0 '#ffffff', 2 '#c6dbef', 4 '#6baed6', 8 "
          "'#08306b')\nunset key\nunset grid\n"
          "plot 'bits.dat' using 1:2:3 with image pixels, '' using 1:2:(sprintf('%d',$3)):($3 > 4 ? 0xffffff : "
          "0x222222) "
          "with labels font ',9' textcolor rgb variable\n",
          columns, rows, row - 0.5, static_cast<double>(comparison.layers.size()) - 0.5);
  return drawing;
}

}  // namespace

std::vector<DrawnFigure> DrawFigures(const Comparison& comparison, const std::filesystem::path& folder) {
  const bool planned = std::any_of(comparison.plans.begin(), comparison.plans.end(),
                                   [](const ComparedPlan& plan) { return plan.failure.empty(); });
  const bool pairs = planned && comparison.plans.front().budget.IsPair();
  const Axis axis = pairs ? Axis::kBops : Axis::kAverageBits;
  std::vector<Drawing> drawings = {Sigmas(comparison)};
  if (planned) {
    drawings = {Curves(comparison, "accuracy", axis, Gained::kAccuracy),
                Curves(comparison, "accuracy-bytes", Axis::kBytes, Gained::kAccuracy),
                Curves(comparison, "nll", axis, Gained::kNll),
                Bits(comparison),
                drawings.front(),
                Prediction(comparison)};
  }
  return Draw(drawings, folder);
}

}  // namespace bitplan
