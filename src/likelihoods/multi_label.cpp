// Labels that are there or not, each by itself: a logit y for every label, p = 1 / (1 + exp(-y)). With one output a
// binary classifier.
#include <fmt/format.h>

#include <cmath>

#include "bitplan/core/error.h"
#include "likelihoods/categorical.h"
#include "likelihoods/list.h"

namespace bitplan {
namespace {

// [n, L] of [n, L], [n, 1] or [n].
torch::Tensor Labelled(const torch::Tensor& of_images) { return of_images.reshape({of_images.size(0), -1}); }

class LabelMeasure : public Measure {
 public:
  void Add(const torch::Tensor& outputs, const torch::Tensor& labels) override {
    const torch::Tensor logits = Labelled(outputs).to(torch::kFloat64), truth = Labelled(labels).to(torch::kFloat64);
    const torch::Tensor given = logits.gt(0.0).to(torch::kFloat64), hits = given.eq(truth).sum(1);
    const torch::Tensor losses = (torch::softplus(logits) - truth * logits).mean(1);
    for (std::int64_t i = 0; i < truth.size(0); ++i) {
      result_.gained.push_back(hits[i].item<double>());
      result_.possible.push_back(static_cast<double>(truth.size(1)));
      result_.nll.push_back(losses[i].item<float>());
      loss_ += losses[i].item<double>();
    }
    const torch::Tensor counts = torch::stack({(given * truth).sum(0), given.sum(0), truth.sum(0)});
    counts_ = counts_.defined() ? counts_ + counts : counts;
  }

  [[nodiscard]] Evaluation Finish() override {
    if (result_.nll.empty()) throw Error(ErrorKind::kData, "there are no images to measure");
    double hits = 0.0, all = 0.0;
    for (std::size_t i = 0; i < result_.gained.size(); ++i) {
      hits += result_.gained[i];
      all += result_.possible[i];
    }
    Metrics& metrics = result_.metrics;
    metrics.accuracy = hits / all;
    metrics.nll = loss_ / static_cast<double>(result_.nll.size());
    metrics.figures = {{"accuracy", metrics.accuracy}, {"f1", MeanF1()}, {"nll", metrics.nll}};
    return std::move(result_);
  }

 private:
  // Of the labels that are there, or are said to be.
  [[nodiscard]] double MeanF1() const {
    const torch::Tensor either = counts_[1] + counts_[2], there = either.gt(0.0);
    if (!there.any().item<bool>()) return 1.0;  // nothing is there, and nothing is said to be
    return (2.0 * counts_[0].masked_select(there) / either.masked_select(there)).mean().item<double>();
  }

  Evaluation result_;
  double loss_ = 0.0;
  torch::Tensor counts_;  // float64 [3, L]: met, said to be there, there
};

class LabelLikelihood : public Likelihood {
 public:
  [[nodiscard]] const char* name() const override { return "multi-label"; }
  [[nodiscard]] std::string AdoptLabels(torch::Tensor& labels) const override {
    labels = labels.to(torch::kFloat32);
    if (labels.dim() > 2) return "labels are [N, L], or [N] with one output";
    const torch::Tensor wrong = labels.eq(0.0).logical_or(labels.eq(1.0)).logical_not();
    if (!wrong.any().item<bool>()) return "";
    const auto first = wrong.reshape({labels.size(0), -1}).any(1).nonzero()[0].item<std::int64_t>();
    return fmt::format("row {} has the label {:g}; labels are 0 and 1", first,
                       labels[first].masked_select(wrong[first])[0].item<float>());
  }

  [[nodiscard]] std::string Misfit(const torch::Tensor& outputs, const torch::Tensor& labels) const override {
    if (outputs.dim() > 2) return "logits [N, L], one for every label, are needed";
    const std::int64_t given = Labelled(outputs).size(1), wanted = Labelled(labels).size(1);
    return given == wanted ? "" : fmt::format("logits [N, {}], one for every label, are needed", wanted);
  }

  [[nodiscard]] torch::Tensor AreSound(const torch::Tensor& outputs) const override {
    return Labelled(outputs.detach()).isfinite().all(1);
  }

  [[nodiscard]] torch::Tensor Losses(const torch::Tensor& outputs, const torch::Tensor& labels) const override {
    const torch::Tensor logits = Labelled(outputs);
    return (torch::softplus(logits) - Labelled(labels) * logits).mean(1);
  }

  [[nodiscard]] torch::Tensor Divergences(const torch::Tensor& outputs, const torch::Tensor& others,
                                          const torch::Tensor&) const override {
    const torch::Tensor y = Labelled(outputs), z = Labelled(others);
    return (y.sigmoid() * (y - z) + torch::softplus(z) - torch::softplus(y)).mean(1);
  }

  [[nodiscard]] torch::Tensor Sketch(const torch::Tensor& outputs, const torch::Tensor&,
                                     RandomStream& stream) const override {
    const torch::Tensor logits = Labelled(outputs), p = logits.detach().sigmoid();
    const torch::Tensor root = (p * (1.0 - p)).sqrt() * RandomSigns(p, stream);
    return (logits * root).sum() / std::sqrt(static_cast<double>(logits.size(1)));
  }

  [[nodiscard]] std::unique_ptr<Measure> MakeMeasure(const torch::Tensor&) const override {
    return std::make_unique<LabelMeasure>();
  }
};

}  // namespace

std::unique_ptr<Likelihood> MakeMultiLabel() { return std::make_unique<LabelLikelihood>(); }

}  // namespace bitplan
