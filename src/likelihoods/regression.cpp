// Numbers with Gaussian noise of one variance: regression, reconstruction of images.
//
// The loss of an image is the mean over its values of (y - t)^2 / 2v + log(2 pi v) / 2. The variance v scales all rises
// alike, so no plan depends on it; it says what an error is worth in nats.
#include <fmt/format.h>

#include <cmath>

#include "bitplan/core/error.h"
#include "likelihoods/categorical.h"
#include "likelihoods/list.h"

namespace bitplan {
namespace {

constexpr double kLeastNoise = 1e-12;

// [n, ...] -> [n, values]
torch::Tensor Values(const torch::Tensor& of_images) { return of_images.reshape({of_images.size(0), -1}); }

class ErrorMeasure : public Measure {
 public:
  ErrorMeasure(const torch::Tensor& targets, double variance)
      : mean_(Values(targets).mean(0, false, torch::kFloat64)), variance_(variance) {}

  void Add(const torch::Tensor& outputs, const torch::Tensor& targets) override {
    const torch::Tensor wanted = Values(targets).to(torch::kFloat64), given = Values(outputs).to(torch::kFloat64);
    const torch::Tensor errors = (given - wanted).square().sum(1), distances = (wanted - mean_).square().sum(1);
    const auto values = static_cast<double>(wanted.size(1));
    for (std::int64_t i = 0; i < wanted.size(0); ++i) {
      const double error = errors[i].item<double>(), distance = distances[i].item<double>();
      result_.possible.push_back(distance);
      result_.gained.push_back(distance - error);
      result_.nll.push_back(static_cast<float>(0.5 * error / values / variance_ + Constant()));
      error_ += error / values;
      distance_ += distance;
    }
  }

  [[nodiscard]] Evaluation Finish() override {
    if (result_.nll.empty()) throw Error(ErrorKind::kData, "there are no images to measure");
    if (!(distance_ > 0.0)) {
      throw Error(ErrorKind::kData, "all targets are alike, so there is nothing that R2 could explain");
    }
    double gained = 0.0;
    for (const double value : result_.gained) gained += value;
    const double error = error_ / static_cast<double>(result_.nll.size());
    Metrics& metrics = result_.metrics;
    metrics.accuracy = gained / distance_;
    metrics.nll = 0.5 * error / variance_ + Constant();
    metrics.figures = {{"r2", metrics.accuracy}, {"rmse", std::sqrt(error)}, {"nll", metrics.nll}};
    return std::move(result_);
  }

 private:
  [[nodiscard]] double Constant() const { return 0.5 * std::log(2.0 * std::acos(-1.0) * variance_); }

  torch::Tensor mean_;  // float64 [values]
  double variance_;
  double error_ = 0.0, distance_ = 0.0;
  Evaluation result_;
};

class RegressionLikelihood : public Likelihood {
 public:
  [[nodiscard]] const char* name() const override { return "regression"; }
  [[nodiscard]] std::string AdoptLabels(torch::Tensor& labels) const override {
    labels = labels.to(torch::kFloat32);
    return "";
  }

  [[nodiscard]] std::string Misfit(const torch::Tensor& outputs, const torch::Tensor& labels) const override {
    const auto given = outputs.sizes().slice(1), wanted = labels.sizes().slice(1);
    const bool one_each = Values(outputs).size(1) == 1 && Values(labels).size(1) == 1;
    if (given == wanted || one_each) return "";
    return fmt::format("outputs of the shape of the targets, {} for an image, are needed", c10::str(wanted));
  }

  [[nodiscard]] torch::Tensor AreSound(const torch::Tensor& outputs) const override {
    return Values(outputs.detach()).isfinite().all(1);
  }

  [[nodiscard]] torch::Tensor Losses(const torch::Tensor& outputs, const torch::Tensor& labels) const override {
    return (Values(outputs) - Values(labels)).square().mean(1) / (2.0 * variance_) +
           0.5 * std::log(2.0 * std::acos(-1.0) * variance_);
  }

  [[nodiscard]] torch::Tensor Divergences(const torch::Tensor& outputs, const torch::Tensor& others,
                                          const torch::Tensor&) const override {
    return (Values(outputs) - Values(others)).square().mean(1) / (2.0 * variance_);
  }

  [[nodiscard]] torch::Tensor Sketch(const torch::Tensor& outputs, const torch::Tensor&,
                                     RandomStream& stream) const override {
    const torch::Tensor values = Values(outputs);
    return (values * RandomSigns(values, stream)).sum() / std::sqrt(variance_ * static_cast<double>(values.size(1)));
  }

  [[nodiscard]] std::unique_ptr<Measure> MakeMeasure(const torch::Tensor& labels) const override {
    return std::make_unique<ErrorMeasure>(labels, variance_);
  }

  [[nodiscard]] bool has_noise() const override { return true; }
  void SetNoise(double variance) override { variance_ = std::max(variance, kLeastNoise); }

 private:
  double variance_ = 1.0;
};

}  // namespace

std::unique_ptr<Likelihood> MakeRegression() { return std::make_unique<RegressionLikelihood>(); }

}  // namespace bitplan
