// What is left of a drift of uncertainty after fine-tuning, taken out by two scales.
//
// A network that was fine-tuned to be as unsure as the reference on its training images is not quite so on others. A
// factor on all standard deviations and one on the logits (a temperature: Guo et al., "On calibration of modern neural
// networks", 2017) cost nothing: no code changes, only scales and the biases of the output layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/bayes/predict.h"
#include "bitplan/bayes/stored_network.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"

namespace bitplan {

// log(mean over images / the reference's); 0 where the reference is sure (a mean below 1e-6 nats).
struct UncertaintyDrift {
  double aleatoric = 0.0, epistemic = 0.0;
};

// What the reference is unsure of on images that are not trained on.
class UncertaintyTarget {
 public:
  // Images that occur once and images that occur several times (with several labels) are kinds of their own. `data`: at
  // least one image. Error(kData) that names the image for which a network gives no numbers.
  UncertaintyTarget(const StoredNetwork& reference, const Dataset& data, const Normalizer& normalizer,
                    std::uint64_t seed, ProgressSink& progress);

  // Of every kind, over the draws that the reference met: as the network is, and with its logits times each of
  // `factors`. [factors + 1][kinds]
  [[nodiscard]] std::vector<std::vector<UncertaintyDrift>> Drift(const StoredNetwork& stored,
                                                                 const std::vector<double>& factors,
                                                                 ProgressSink& progress) const;

  // Of every kind, in proportion to its images where these are few: 1 from a hundred on.
  [[nodiscard]] const std::vector<double>& weights() const { return weights_; }
  [[nodiscard]] const torch::Tensor& inputs() const { return inputs_; }  // normalized, [n, C, H, W]
  [[nodiscard]] std::string InputName(std::int64_t input) const { return images_.ImageName(input); }

 private:
  struct Means {
    double aleatoric, epistemic;  // nats
  };
  [[nodiscard]] std::vector<std::vector<Means>> Measure(const StoredNetwork& stored, const std::vector<double>& factors,
                                                        ProgressSink& progress) const;

  DistinctImages images_;
  torch::Tensor inputs_;
  std::uint64_t seed_;
  int draws_;
  std::vector<torch::Tensor> kinds_;  // bool [images] each
  std::vector<double> weights_;
  std::vector<Means> wanted_;
};

struct UncertaintyScales {
  double sigmas = 1.0, logits = 1.0;  // 0.8 .. 1.25 each
};

// Multiplies all standard deviations by one factor and the logits by another, in place: those that make the drifts of
// all kinds least in the weighted sum of their squares, by one Gauss-Newton step within the bounds whose slopes are
// measured (of drifts beyond 1 as of 1); a step that makes it no less is not taken. Where the last layer does not put
// out the logits, they stay as they are. Returns the factors.
UncertaintyScales CalibrateUncertainty(StoredNetwork& stored, const UncertaintyTarget& target, ProgressSink& progress);

}  // namespace bitplan
