// One label for every position of an image: pixels of a segmentation, tokens of a sequence. Positions are independent
// given the logits.
#include <fmt/format.h>
#include <torch/utils.h>

#include <cmath>

#include "bitplan/core/error.h"
#include "likelihoods/categorical.h"
#include "likelihoods/list.h"

namespace bitplan {
namespace {

// Sums over all positions that count.
class PositionSums {
 public:
  explicit PositionSums(bool of_regions) : of_regions_(of_regions) {}

  // `rows`: logits [n * positions, classes]; `labels`: [n, positions].
  void AddRows(const torch::Tensor& rows, const torch::Tensor& labels) {
    const std::int64_t images = labels.size(0), classes = rows.size(1);
    const torch::Tensor flat = labels.reshape({-1}), counts = labels.ne(kIgnored);
    const torch::Tensor nll =
        torch::nll_loss(rows.log_softmax(1), flat, {}, at::Reduction::None, kIgnored).reshape({images, -1});
    const torch::Tensor answers = rows.argmax(1), right = answers.eq(flat).reshape({images, -1}).logical_and(counts);
    const torch::Tensor lost = nll.sum(1, false, torch::kFloat64), hits = right.sum(1), all = counts.sum(1);
    for (std::int64_t i = 0; i < images; ++i) {
      const double positions = all[i].item<double>(), loss = lost[i].item<double>();
      if (!std::isfinite(loss)) {
        throw Error(ErrorKind::kData, fmt::format("image {} has a position whose label is a class that the network "
                                                  "rules out, or outputs that are not finite",
                                                  result_.nll.size()));
      }
      result_.gained.push_back(hits[i].item<double>());
      result_.possible.push_back(positions);
      result_.nll.push_back(static_cast<float>(positions > 0.0 ? loss / positions : 0.0));
      loss_ += loss;
      if (positions > 0.0) {
        ++counted_;
        of_images_ += loss / positions;
      }
    }
    if (!of_regions_) return;
    const torch::Tensor chosen = flat.ne(kIgnored);
    const torch::Tensor truth = flat.masked_select(chosen), given = answers.masked_select(chosen);
    const torch::Tensor pairs = torch::bincount(truth * classes + given, {}, classes * classes);
    pairs_ = pairs_.defined() ? pairs_ + pairs : pairs;
    classes_ = classes;
  }

  [[nodiscard]] Evaluation Finish() {
    double hits = 0.0, positions = 0.0;
    for (std::size_t i = 0; i < result_.gained.size(); ++i) {
      hits += result_.gained[i];
      positions += result_.possible[i];
    }
    if (positions == 0.0) throw Error(ErrorKind::kData, "no position of any image has a label that counts");
    Metrics& metrics = result_.metrics;
    metrics.accuracy = hits / positions;
    metrics.nll = of_images_ / counted_;
    metrics.figures = {{"accuracy", metrics.accuracy}};
    metrics.figures.push_back(of_regions_ ? Figure{"miou", MeanOverlap()}
                                          : Figure{"perplexity", std::exp(loss_ / positions)});
    metrics.figures.push_back({"nll", metrics.nll});
    return std::move(result_);
  }

 private:
  // Of the classes that a label or an answer has: of how many positions both are the class, among those of which one
  // is.
  [[nodiscard]] double MeanOverlap() const {
    const torch::Tensor pairs = pairs_.reshape({classes_, classes_}).to(torch::kFloat64);
    const torch::Tensor both = pairs.diagonal(), either = pairs.sum(0) + pairs.sum(1) - both;
    const torch::Tensor there = either.gt(0.0);
    return (both.masked_select(there) / either.masked_select(there)).mean().item<double>();
  }

  bool of_regions_;
  Evaluation result_;
  double loss_ = 0.0;       // of all positions
  double of_images_ = 0.0;  // sum of the images' means
  double counted_ = 0.0;    // images with a position that counts
  torch::Tensor pairs_;     // int64 [classes * classes]: positions by label and answer
  std::int64_t classes_ = 0;
};

class PositionLikelihood : public Likelihood {
 public:
  // `classes_last`: of tokens; otherwise they are dimension 1.
  explicit PositionLikelihood(bool classes_last) : classes_last_(classes_last) {}

  [[nodiscard]] const char* name() const override { return classes_last_ ? "tokens" : "segmentation"; }
  [[nodiscard]] std::string AdoptLabels(torch::Tensor& labels) const override {
    if (labels.is_floating_point()) return "labels are integers, array.astype('int64')";
    if (labels.dim() < 2) return "labels are [N, ...], a class number for every position";
    labels = labels.to(torch::kInt64);
    const torch::Tensor wrong = labels.lt(0).logical_and(labels.ne(kIgnored));
    if (!wrong.any().item<bool>()) return "";
    const auto first = wrong.reshape({labels.size(0), -1}).any(1).nonzero()[0].item<std::int64_t>();
    return fmt::format("image {} has the label {}; labels are class numbers from 0, or {} where none counts", first,
                       labels[first].masked_select(wrong[first])[0].item<std::int64_t>(), kIgnored);
  }

  [[nodiscard]] std::string Misfit(const torch::Tensor& outputs, const torch::Tensor& labels) const override {
    const char* const wanted =
        classes_last_ ? "logits [N, positions..., classes]" : "logits [N, classes, positions...]";
    if (outputs.dim() < 3) return fmt::format("{} are needed", wanted);
    std::vector<std::int64_t> positions = outputs.sizes().slice(1).vec();
    const std::int64_t classes = classes_last_ ? positions.back() : positions.front();
    positions.erase(classes_last_ ? positions.end() - 1 : positions.begin());
    if (classes < 2) return fmt::format("{} of two classes or more are needed", wanted);
    if (labels.sizes().slice(1) != c10::IntArrayRef(positions)) {
      return fmt::format("{} of the positions of the labels, {} for an image, are needed", wanted,
                         c10::str(labels.sizes().slice(1)));
    }
    const std::int64_t most = labels.numel() == 0 ? 0 : labels.max().item<std::int64_t>();
    return most < classes ? "" : fmt::format("the labels go up to {}, its classes are 0..{}", most, classes - 1);
  }

  [[nodiscard]] torch::Tensor AreSound(const torch::Tensor& outputs) const override {
    return HaveProbabilities(Rows(outputs)).reshape({outputs.size(0), -1}).all(1);
  }

  [[nodiscard]] torch::Tensor Losses(const torch::Tensor& outputs, const torch::Tensor& labels) const override {
    const torch::Tensor flat = labels.reshape({-1});
    const torch::Tensor nll = torch::nll_loss(Rows(outputs).log_softmax(1), flat, {}, at::Reduction::None, kIgnored);
    return (nll.reshape({labels.size(0), -1}) * Shares(labels)).sum(1);
  }

  [[nodiscard]] torch::Tensor Divergences(const torch::Tensor& outputs, const torch::Tensor& others,
                                          const torch::Tensor& labels) const override {
    const torch::Tensor rows = RowDivergences(Rows(outputs).log_softmax(1), Rows(others).log_softmax(1));
    const torch::Tensor shares = Shares(labels), of_images = rows.reshape({outputs.size(0), -1});
    return torch::where(shares.gt(0.0), of_images * shares, torch::zeros_like(of_images)).sum(1);
  }

  [[nodiscard]] torch::Tensor Sketch(const torch::Tensor& outputs, const torch::Tensor& labels,
                                     RandomStream& stream) const override {
    const torch::Tensor rows = Rows(outputs), sketches = RowSketches(rows, stream);
    return (rows * (sketches * Shares(labels).sqrt().reshape({-1, 1}))).sum();
  }

  [[nodiscard]] std::unique_ptr<Measure> MakeMeasure(const torch::Tensor&) const override;

  // [n, ...] -> [n * positions, classes].
  [[nodiscard]] torch::Tensor Rows(const torch::Tensor& outputs) const {
    if (classes_last_) return outputs.reshape({-1, outputs.size(-1)});
    return outputs.flatten(2).transpose(1, 2).reshape({-1, outputs.size(1)});
  }

 private:
  // What every position counts in the mean of its image, [n, positions]: nothing, or one over those that count.
  static torch::Tensor Shares(const torch::Tensor& labels) {
    const torch::Tensor counts = labels.flatten(1).ne(kIgnored).to(torch::kFloat32);
    return counts / counts.sum(1, /*keepdim=*/true).clamp_min(1.0);
  }

  bool classes_last_;
};

class PositionMeasure : public Measure {
 public:
  PositionMeasure(const PositionLikelihood& likelihood, bool of_regions) : likelihood_(likelihood), sums_(of_regions) {}
  void Add(const torch::Tensor& outputs, const torch::Tensor& labels) override {
    sums_.AddRows(likelihood_.Rows(outputs.to(torch::kFloat32)), labels.flatten(1));
  }
  [[nodiscard]] Evaluation Finish() override { return sums_.Finish(); }

 private:
  PositionLikelihood likelihood_;
  PositionSums sums_;
};

std::unique_ptr<Measure> PositionLikelihood::MakeMeasure(const torch::Tensor&) const {
  return std::make_unique<PositionMeasure>(*this, !classes_last_);
}

}  // namespace

std::unique_ptr<Likelihood> MakeSegmentation() { return std::make_unique<PositionLikelihood>(false); }
std::unique_ptr<Likelihood> MakeTokens() { return std::make_unique<PositionLikelihood>(true); }

}  // namespace bitplan
