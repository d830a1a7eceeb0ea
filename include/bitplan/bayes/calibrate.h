// What is left of a drift of uncertainty after fine-tuning, taken out by two scales.
//
// A network that was fine-tuned has the reference's uncertainty on its training images; on others it is a little surer
// of what it draws from, or less sure of a single answer. A factor on all standard deviations and one on the logits (a
// temperature: Guo et al., "On calibration of modern neural networks", 2017) cost nothing: no code changes, only scales
// and the biases of the output layer.
#pragma once

#include <cstdint>
#include <vector>

#include "bitplan/bayes/predict.h"
#include "bitplan/bayes/stored_network.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"

namespace bitplan {

// log(mean over images / the reference's); 0 where either is 0.
struct UncertaintyDrift {
  double aleatoric = 0.0, epistemic = 0.0;
};

// What the reference is unsure of on images that are not trained on.
class UncertaintyTarget {
 public:
  // Images that occur once and images that occur several times (with several labels) are kinds of their own. `data`: at
  // least one image.
  UncertaintyTarget(const StoredNetwork& reference, const Dataset& data, const Normalizer& normalizer,
                    std::uint64_t seed, ProgressSink& progress);

  // Of every kind, over the draws that the reference met: as the network is, and with its logits times each of
  // `factors`. [factors + 1][kinds]
  [[nodiscard]] std::vector<std::vector<UncertaintyDrift>> Drift(const StoredNetwork& stored,
                                                                 const std::vector<double>& factors,
                                                                 ProgressSink& progress) const;

 private:
  struct Means {
    double aleatoric, epistemic;  // nats
  };
  [[nodiscard]] std::vector<std::vector<Means>> Measure(const StoredNetwork& stored, const std::vector<double>& factors,
                                                        ProgressSink& progress) const;

  DistinctImages images_;
  torch::Tensor inputs_;  // normalized
  std::uint64_t seed_;
  std::vector<torch::Tensor> kinds_;  // bool [images] each
  std::vector<Means> wanted_;
};

struct UncertaintyScales {
  double sigmas = 1.0, logits = 1.0;  // 0.8 .. 1.25 each
};

// Multiplies all standard deviations by one factor and the logits by another, in place: those that make the drifts of
// all kinds least in the sum of their squares, by two Gauss-Newton steps. Epistemic uncertainty grows with the square
// of the standard deviations (to first order, and the aleatoric one not at all); what the logits do is measured. Where
// the last layer does not put out the logits, they stay as they are. Returns the factors.
UncertaintyScales CalibrateUncertainty(StoredNetwork& stored, const UncertaintyTarget& target, ProgressSink& progress);

}  // namespace bitplan
