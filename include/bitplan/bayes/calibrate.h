// What is left of a drift of epistemic uncertainty after fine-tuning, taken out by the scale of the standard
// deviations.
//
// A network that was fine-tuned has the reference's uncertainty on its training images; on others it is a little surer
// of itself. A factor on all standard deviations costs nothing: no code changes, on a logarithmic grid only the lowest
// level of every layer.
#pragma once

#include <cstdint>
#include <vector>

#include "bitplan/bayes/predict.h"
#include "bitplan/bayes/stored_network.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"

namespace bitplan {

// What the reference is unsure of on images that are not trained on.
class EpistemicTarget {
 public:
  // Images that occur once and images that occur several times (with several labels) are kinds of their own. `data`: at
  // least one image.
  EpistemicTarget(const StoredNetwork& reference, const Dataset& data, const Normalizer& normalizer, std::uint64_t seed,
                  ProgressSink& progress);

  // log(mean epistemic uncertainty / the reference's) of every kind, over the draws that the reference met; 0 where
  // either is 0.
  [[nodiscard]] std::vector<double> Drift(const StoredNetwork& stored, ProgressSink& progress) const;

 private:
  [[nodiscard]] std::vector<double> Means(const StoredNetwork& stored, ProgressSink& progress) const;  // nats

  DistinctImages images_;
  Normalizer normalizer_;
  std::uint64_t seed_;
  std::vector<torch::Tensor> kinds_;  // bool [images] each
  std::vector<double> wanted_;        // nats
};

// Multiplies all standard deviations by one factor, in place, that makes the mean drift over the kinds zero to first
// order: epistemic uncertainty grows with their square. Returns the factor, 0.8 .. 1.25.
double CalibrateSigmas(StoredNetwork& stored, const EpistemicTarget& target, ProgressSink& progress);

}  // namespace bitplan
