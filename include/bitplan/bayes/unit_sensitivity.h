// What every width of every mean and standard deviation tensor costs: the table that gives a Bayesian network's
// variational parameters their widths, by the same allocators as any other plan.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/bayes/stored_network.h"
#include "bitplan/bayes/widths.h"
#include "bitplan/core/options.h"
#include "bitplan/core/problem.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"

namespace bitplan {

// Two units a layer, "conv1.mean" and "conv1.sigma". An entry is the mean over draws and images of KL(p_t || q_t), p_t
// the answer of the float network to draw t and q_t that of the network with this one tensor rounded: an upper bound of
// the divergence of the predictive distributions which also sees what moves between aleatoric and epistemic
// uncertainty. `images`: training images as in the data set, `names` of them for errors. Widths 1..8.
[[nodiscard]] AllocationProblem MeasureUnits(const StoredNetwork& reference, const torch::Tensor& images,
                                             const Normalizer& normalizer, const std::vector<int>& widths,
                                             const std::string& sigma_scale, const QuantizerOptions& quantizer,
                                             int draws, std::uint64_t seed, ProgressSink& progress,
                                             const InputNames& names = {});

// The widths of a plan for that table, one entry per layer; samples stay in float.
[[nodiscard]] std::vector<BayesWidths> WidthsOf(const std::vector<int>& unit_bits);

}  // namespace bitplan
