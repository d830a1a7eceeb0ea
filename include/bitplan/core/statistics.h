// Statistics of paired measurements, on plain arrays.
#pragma once

#include <cstdint>
#include <vector>

#include "bitplan/core/plan.h"
#include "bitplan/core/random.h"

namespace bitplan {

// Paired comparison of two classifiers on the same samples. `float_correct`, `quantized_correct`: one 0/1 entry per
// sample, same order. The interval is the percentile bootstrap over samples (the difference takes three values, so a
// resample is one multinomial draw); p is McNemar's exact test on the discordant pairs.
[[nodiscard]] PairedComparison ComparePaired(const std::vector<std::uint8_t>& float_correct,
                                             const std::vector<std::uint8_t>& quantized_correct, int resamples,
                                             RandomStream stream);

// Two-sided exact binomial p of a split (b, c) of discordant pairs under p = 1/2; 1 when there are none.
[[nodiscard]] double McNemarExact(std::int64_t b, std::int64_t c);

// The 97.5 % quantile of Student's t, half a two-sided 95 % interval in standard errors, by the expansion of Cornish and
// Fisher; degrees of freedom > 0, relative error below 1 % from 3 on.
[[nodiscard]] double StudentQuantile975(double degrees);

// Area under the ROC curve of a score that should be higher for `positive`: the probability that a random positive is
// above a random negative, ties counting half (Mann-Whitney). Both non-empty.
[[nodiscard]] double Auroc(const std::vector<double>& negative, const std::vector<double>& positive);

// Spearman's rank correlation with mean ranks for ties; sizes equal, at least 2. 0 when either side is constant.
[[nodiscard]] double SpearmanCorrelation(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace bitplan
