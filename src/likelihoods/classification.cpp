// One label for every image: softmax over the logits of its classes.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "likelihoods/categorical.h"
#include "likelihoods/list.h"

namespace bitplan {
namespace {

constexpr int kCalibrationBins = 15;

// Bin i holds the confidences in (i / 15, (i + 1) / 15].
int CalibrationBin(double confidence) {
  return std::clamp(static_cast<int>(std::ceil(confidence * kCalibrationBins)) - 1, 0, kCalibrationBins - 1);
}

void CheckLabels(const torch::Tensor& logits, const torch::Tensor& labels) {
  if (logits.dim() != 2 || labels.dim() != 1 || logits.size(0) != labels.size(0) || labels.size(0) == 0) {
    throw Error(ErrorKind::kData, fmt::format("evaluation needs outputs [N, classes] and labels [N], N > 0; it got {} "
                                              "and {}",
                                              Counted(logits.dim() > 0 ? logits.size(0) : 0, "output row"),
                                              Counted(labels.numel(), "label")));
  }
  const std::int64_t low = labels.min().item<std::int64_t>(), high = labels.max().item<std::int64_t>();
  if (low < 0 || high >= logits.size(1)) {
    throw Error(ErrorKind::kData,
                fmt::format("the data has the label {} at position {}, the network has {}: labels must be in "
                            "0..{}",
                            low < 0 ? low : high, (low < 0 ? labels.argmin() : labels.argmax()).item<std::int64_t>(),
                            Counted(logits.size(1), "output"), logits.size(1) - 1));
  }
}

class ClassMeasure : public Measure {
 public:
  void Add(const torch::Tensor& outputs, const torch::Tensor& labels) override {
    outputs_.push_back(outputs.to(torch::kFloat32));
    labels_.push_back(labels);
  }
  [[nodiscard]] Evaluation Finish() override {
    if (outputs_.empty()) return EvaluateLogits(torch::empty({0, 0}), torch::empty({0}, torch::kInt64));
    return EvaluateLogits(torch::cat(outputs_), torch::cat(labels_));
  }

 private:
  std::vector<torch::Tensor> outputs_, labels_;
};

class ClassLikelihood : public Likelihood {
 public:
  [[nodiscard]] const char* name() const override { return "classification"; }
  [[nodiscard]] std::string AdoptLabels(torch::Tensor& labels) const override {
    if (labels.is_floating_point()) return "labels are integers, array.astype('int64')";
    return labels.dim() == 1 ? "" : "labels are [N] class numbers";
  }
  [[nodiscard]] std::string Misfit(const torch::Tensor& outputs, const torch::Tensor& labels) const override {
    if (outputs.dim() != 2) return "logits [N, classes] are needed";
    const bool within = labels.numel() == 0 ||
                        (labels.min().item<std::int64_t>() >= 0 && labels.max().item<std::int64_t>() < outputs.size(1));
    return within ? "" : fmt::format("labels are class numbers 0..{}", outputs.size(1) - 1);
  }
  [[nodiscard]] torch::Tensor AreSound(const torch::Tensor& outputs) const override {
    return HaveProbabilities(outputs);
  }
  [[nodiscard]] torch::Tensor Losses(const torch::Tensor& outputs, const torch::Tensor& labels) const override {
    return torch::nll_loss(outputs.log_softmax(1), labels, {}, at::Reduction::None);
  }
  [[nodiscard]] torch::Tensor Loss(const torch::Tensor& outputs, const torch::Tensor& labels,
                                   bool mean) const override {
    return torch::nll_loss(outputs.log_softmax(1), labels, {}, mean ? at::Reduction::Mean : at::Reduction::Sum);
  }
  [[nodiscard]] torch::Tensor Divergences(const torch::Tensor& outputs, const torch::Tensor& others,
                                          const torch::Tensor&) const override {
    return RowDivergences(outputs.log_softmax(1), others.log_softmax(1));
  }
  [[nodiscard]] torch::Tensor Sketch(const torch::Tensor& outputs, const torch::Tensor&,
                                     RandomStream& stream) const override {
    return (outputs * RowSketches(outputs, stream)).sum();
  }
  [[nodiscard]] std::unique_ptr<Measure> MakeMeasure(const torch::Tensor&) const override {
    return std::make_unique<ClassMeasure>();
  }
};

}  // namespace

Evaluation EvaluateLogits(const torch::Tensor& logits, const torch::Tensor& labels) {
  CheckLabels(logits, labels);
  const torch::Tensor log_p = torch::log_softmax(logits.to(torch::kCPU, torch::kFloat64), 1).contiguous();
  const torch::Tensor truth = labels.to(torch::kCPU, torch::kInt64).contiguous();
  const std::int64_t samples = log_p.size(0), classes = log_p.size(1);
  std::array<double, kCalibrationBins> confidence{}, hits{};
  Evaluation result;
  result.correct.reserve(static_cast<std::size_t>(samples));
  for (std::int64_t i = 0; i < samples; ++i) {
    const double* row = log_p.data_ptr<double>() + i * classes;
    const std::int64_t label = truth.data_ptr<std::int64_t>()[i];
    if (std::isnan(row[label])) {
      throw Error(ErrorKind::kData, fmt::format("the network's output for image {} is not finite", i));
    }
    if (std::isinf(row[label])) {
      throw Error(ErrorKind::kData, fmt::format("image {} has the label {}, a class that the network rules out: its "
                                                "output for it is -inf",
                                                i, label));
    }
    const std::int64_t answer = std::max_element(row, row + classes) - row;
    double brier = 0.0;
    for (std::int64_t c = 0; c < classes; ++c) {
      const double error = std::exp(row[c]) - (c == label ? 1.0 : 0.0);
      brier += error * error;
    }
    const double top = std::exp(row[answer]);
    confidence[CalibrationBin(top)] += top;
    hits[CalibrationBin(top)] += answer == label ? 1.0 : 0.0;
    result.metrics.accuracy += answer == label ? 1.0 : 0.0;
    result.metrics.nll -= row[label];
    result.metrics.brier += brier;
    result.correct.push_back(answer == label ? 1 : 0);
    result.nll.push_back(static_cast<float>(-row[label]));
  }
  for (int bin = 0; bin < kCalibrationBins; ++bin) result.metrics.ece += std::abs(hits[bin] - confidence[bin]);
  for (double* sum : {&result.metrics.accuracy, &result.metrics.nll, &result.metrics.brier, &result.metrics.ece}) {
    *sum /= static_cast<double>(samples);
  }
  return result;
}

std::unique_ptr<Likelihood> MakeClassification() { return std::make_unique<ClassLikelihood>(); }

}  // namespace bitplan
