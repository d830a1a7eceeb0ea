// What a network's outputs say about the labels of an image: the loss, how far two networks' predictions are apart, a
// sketch of the Fisher information, and what is measured. One task of recipes (data.task) is one of these.
//
//   name            outputs             labels                     score
//   classification  [N, classes]        [N] class numbers          accuracy
//   segmentation    [N, classes, ...]   [N, ...] class numbers     accuracy of all positions
//   tokens          [N, ..., classes]   [N, ...] class numbers     accuracy of all positions
//   regression      [N, ...]            [N, ...] numbers           R2
//   multi-label     [N, L], [N, 1], [N] [N, L], [N] of 0 and 1     accuracy of all labels
//
// Every image is one sample. Its loss is the *mean* over its positions, values or labels, in nats, so that rises of the
// loss mean the same for images of any size. Positions whose label is kIgnored do not count. Labels of one image are
// independent given its outputs, so the Fisher information of this loss is the mean over the positions too.
//
// The score is a ratio of sums over images; what a plan loses of it has an interval by bootstrap over images, never
// over positions, which are alike within an image.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bitplan/core/plan.h"
#include "bitplan/core/random.h"

namespace bitplan {

inline constexpr std::int64_t kIgnored = -100;  // the label of a position that does not count

struct Evaluation {
  Metrics metrics;
  std::vector<std::uint8_t> correct;  // classification: 0/1 per sample, in the order of the data set
  std::vector<float> nll;             // nats, per sample
  // Other tasks: of every image what it adds to the two sums whose ratio is the score.
  std::vector<double> gained, possible;
};

// Takes outputs batch by batch.
class Measure {
 public:
  virtual ~Measure() = default;
  virtual void Add(const torch::Tensor& outputs, const torch::Tensor& labels) = 0;
  // Error(kData) when nothing was added that counts, and where a figure has no value.
  [[nodiscard]] virtual Evaluation Finish() = 0;
};

class Likelihood {
 public:
  virtual ~Likelihood() = default;

  [[nodiscard]] virtual const char* name() const = 0;  // of Likelihoods()

  // Labels as a file has them (int64, or float32 without NaN) in the type that the task takes; returns what is wrong
  // with them, one phrase, or nothing.
  [[nodiscard]] virtual std::string AdoptLabels(torch::Tensor& labels) const = 0;
  // What is wrong with `outputs` [n, ...] of a network for these labels [m, ...], one phrase, or nothing. Only shapes
  // of single images and the values of labels count.
  [[nodiscard]] virtual std::string Misfit(const torch::Tensor& outputs, const torch::Tensor& labels) const = 0;
  // bool [n]: images whose outputs are numbers that a loss can be made of.
  [[nodiscard]] virtual torch::Tensor AreSound(const torch::Tensor& outputs) const = 0;

  // Nats of every image, [n]. Gradients pass.
  [[nodiscard]] virtual torch::Tensor Losses(const torch::Tensor& outputs, const torch::Tensor& labels) const = 0;
  // Their mean or their sum.
  [[nodiscard]] virtual torch::Tensor Loss(const torch::Tensor& outputs, const torch::Tensor& labels,
                                           bool mean = true) const;
  // Of every image the divergence KL(p || q) of the predictions by `outputs` from those by `others`, nats, [n]. Labels
  // say only which positions count.
  [[nodiscard]] virtual torch::Tensor Divergences(const torch::Tensor& outputs, const torch::Tensor& others,
                                                  const torch::Tensor& labels) const = 0;
  // A scalar whose gradient g with respect to anything that the outputs depend on has E[g g'] = the sum over the images
  // of the Fisher information of their loss, over the random signs of `stream`: sum_n <z_n, L_n xi_n>, xi random signs
  // and L L' the information of an image's labels about its outputs z. Labels say only which positions count.
  [[nodiscard]] virtual torch::Tensor Sketch(const torch::Tensor& outputs, const torch::Tensor& labels,
                                             RandomStream& stream) const = 0;

  // `labels`: of all images that will be added.
  [[nodiscard]] virtual std::unique_ptr<Measure> MakeMeasure(const torch::Tensor& labels) const = 0;

  // Regression: the variance of the noise, which says how many nats an error is worth: the mean squared error of the
  // float network on training images. Other tasks have none.
  [[nodiscard]] virtual bool has_noise() const { return false; }
  virtual void SetNoise(double) {}
};

struct LikelihoodKind {
  const char* name;
  const char* description;
  std::unique_ptr<Likelihood> (*make)();
};

// The first is classification.
[[nodiscard]] const std::vector<LikelihoodKind>& Likelihoods();
[[nodiscard]] const LikelihoodKind& FindLikelihood(const std::string& name);  // Error(kUsage)
// Of data that state no other.
[[nodiscard]] const Likelihood& Classification();

// Accuracy, NLL, Brier, ECE (15 bins) from logits [N, classes] and labels [N]. Error(kData) when labels exceed classes.
[[nodiscard]] Evaluation EvaluateLogits(const torch::Tensor& logits, const torch::Tensor& labels);

}  // namespace bitplan
