#include "bitplan/core/figures.h"

#include <fmt/format.h>

#include "bitplan/core/suggest.h"

namespace bitplan {

const std::vector<FigureKind>& FigureKinds() {
  static const std::vector<FigureKind> list = {
      {"accuracy", "accuracy", true, "share of the samples, or of all positions or labels that count"},
      {"nll", "NLL", false, "negative log-likelihood, nats per sample, mean over its positions, values or labels"},
      {"miou", "mean IoU", true, "segmentation: intersection over union, mean over the classes that there are"},
      {"perplexity", "perplexity", false, "tokens: exp of the mean negative log-likelihood of all positions"},
      {"r2", "R2", false, "regression: 1 less squared error / squared distance from the mean of the targets"},
      {"rmse", "RMSE", false, "regression: root of the mean squared error, in units of the targets"},
      {"f1", "F1", true, "multi-label: F1 score, mean over the labels that there are (macro)"},
  };
  return list;
}

const FigureKind& FindFigureKind(const std::string& name) { return FindByName(FigureKinds(), "figure", name); }

std::string FigureTitle(const std::string& name) {
  const FigureKind& kind = FindFigureKind(name);
  return kind.share ? kind.title : fmt::format("100 {}", kind.title);
}

std::string FigureText(const Figure& figure) {
  return FindFigureKind(figure.name).share ? fmt::format("{:.2f} %", 100.0 * figure.value)
                                           : fmt::format("{:.4f}", figure.value);
}

}  // namespace bitplan
