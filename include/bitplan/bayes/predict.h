// Predictions of a Bayesian network, and what they are unsure of, measured.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bitplan/bayes/stored_network.h"
#include "bitplan/bayes/uncertainty.h"
#include "bitplan/core/plan.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"

namespace bitplan {

// A data set whose images are different: one that stands several times in a row, once with each of its labels (as in
// Ambiguous-MNIST), is predicted once.
struct DistinctImages {
  torch::Tensor images;  // as in the data set
  torch::Tensor of_row;  // int64 [rows]: which image a row of the data set shows
  torch::Tensor labels;  // int64 [rows]
  std::string name;
  // Of the first row of every image: where it stood in the split as published, int64 [images], and that split's name.
  torch::Tensor positions = {};
  std::string origin = {};

  // "image 40 of npy/test": as its file counts.
  [[nodiscard]] std::string ImageName(std::int64_t image) const;
  [[nodiscard]] std::int64_t size() const { return images.size(0); }
  [[nodiscard]] torch::Tensor Repeated() const;  // bool [images]: stands several times
};
[[nodiscard]] DistinctImages Distinct(const Dataset& data);

// What the inputs of a network are called in an error: "image 40 of npy/test" for number 40. Empty: by their number.
using InputNames = std::function<std::string(std::int64_t input)>;

// Answers of a stored network, draw by draw, through a module of its own. Every kInputsPerDraw inputs meet draws of
// their own: a mean over many images then averages over many more draws than an image sees, at little cost. Networks
// drawn with one seed meet the same noise on the same set of inputs.
class Drawer {
 public:
  explicit Drawer(const StoredNetwork& stored, InputNames names = {});
  // Logits of `inputs` (normalized, [n, C, H, W]), every input under its draw `t` of the seed: float32 [n, classes],
  // n > 0. Error(kData) when they give no probabilities: names the first input for which they do not, or the learning
  // rate where they do for none.
  [[nodiscard]] torch::Tensor Logits(const torch::Tensor& inputs, std::uint64_t seed, int t);

 private:
  const StoredNetwork& stored_;
  InputNames names_;
  std::vector<torch::Tensor> means_, sigmas_;
  torch::jit::Module module_;
  std::vector<TensorSlot> slots_;
};

// Predictive distribution and uncertainty of every image over `draws` draws of the weights. Error(kData) as above.
[[nodiscard]] Uncertainty Predict(const StoredNetwork& stored, const torch::Tensor& images,
                                  const Normalizer& normalizer, int draws, std::uint64_t seed, ProgressSink& progress,
                                  const std::string& label, const InputNames& names = {});
[[nodiscard]] Uncertainty Predict(const StoredNetwork& stored, const DistinctImages& images,
                                  const Normalizer& normalizer, int draws, std::uint64_t seed, ProgressSink& progress,
                                  const std::string& label);

// Of one network on one data set.
struct BayesEvaluation {
  Metrics metrics;                                           // of the predictive distribution, over the rows
  double total = 0.0, aleatoric = 0.0, epistemic = 0.0;      // means over the images, nats
  std::vector<double> aleatoric_without, epistemic_without;  // with a block of draws left out
  // Per image, float32 [images]: share of its labels that the prediction meets, how many it has, its uncertainties.
  torch::Tensor correct, labels, aleatoric_of, epistemic_of;
};
// `labelled` false: the labels mean nothing to the network, metrics and `correct` stay 0.
[[nodiscard]] BayesEvaluation Judge(const Uncertainty& uncertainty, const DistinctImages& data, bool labelled = true);

// Which images met the same draws when `count` were predicted together: int64 [count], numbers from `first` on.
[[nodiscard]] torch::Tensor DrawBlocks(std::int64_t count, std::int64_t first = 0);

// Difference of accuracy on the same images, before - after. Blocks of images that share their draws are resampled
// together, and an image with all of its labels, so that the interval holds images and draws, and ten labels of one
// image do not count as ten images. With fewer than 20 blocks single images are resampled, and draws count as given.
struct ClusteredDrop {
  double drop = 0.0, ci_low = 0.0, ci_high = 0.0;  // 95 %, percentile bootstrap
};
// `before`, `after`: float32 [images], shares of right answers (or their means over several networks); `labels`:
// float32 [images], how many labels an image has; `block`: DrawBlocks.
[[nodiscard]] ClusteredDrop CompareClustered(const torch::Tensor& before, const torch::Tensor& after,
                                             const torch::Tensor& labels, const torch::Tensor& block, int resamples,
                                             std::uint64_t seed);

// The same difference on chosen images, and the upper end of its 95 % interval by RatioOverBlocks and Student's t, for
// few blocks; above the difference by no less than what images on which both agree leave open, 3.7 images.
struct BoundedDrop {
  double value = 0.0;
  double at_most = 0.0;  // infinite for fewer than two blocks
};
// Shapes as above, `chosen`: bool [images], one at least.
[[nodiscard]] BoundedDrop DropOf(const torch::Tensor& before, const torch::Tensor& after, const torch::Tensor& labels,
                                 const torch::Tensor& chosen);

}  // namespace bitplan
