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

// The mean of a - b over the same samples, with its 95 % interval by Student's t. Equally long, at least two entries.
struct MeanDifference {
  double mean = 0.0, ci_low = 0.0, ci_high = 0.0;
};
[[nodiscard]] MeanDifference PairedMean(const std::vector<float>& a, const std::vector<float>& b);

// Two-sided exact binomial p of a split (b, c) of discordant pairs under p = 1/2; 1 when there are none.
[[nodiscard]] double McNemarExact(std::int64_t b, std::int64_t c);

// The best of one family of classifiers against the best of another, on the same samples.
struct FamilyLead {
  std::size_t first = 0, second = 0;  // the most accurate of either family, the earlier one of equals
  double lead = 0.0;                  // accuracy(first) - accuracy(second)
  // That the one ahead beats the other family: the largest of McNemar's exact two-sided p against its members (1
  // against one that it is not ahead of), multiplied by the number of classifiers that the one ahead was chosen from
  // (Bonferroni). 1 at a lead of 0.
  double p = 1.0;
};
// One 0/1 entry per sample and classifier, samples in the same order; both families non-empty, classifiers distinct.
[[nodiscard]] FamilyLead CompareFamilies(const std::vector<const std::vector<std::uint8_t>*>& first,
                                         const std::vector<const std::vector<std::uint8_t>*>& second);

// The 97.5 % quantile of Student's t, half a two-sided 95 % interval in standard errors: by the expansion of Cornish
// and Fisher from 30 degrees of freedom on, by a sum over the density below; degrees >= 1, relative error below 1e-5.
[[nodiscard]] double StudentQuantile975(double degrees);

// Area under the ROC curve of a score that should be higher for `positive`: the probability that a random positive is
// above a random negative, ties counting half (Mann-Whitney). Both non-empty.
[[nodiscard]] double Auroc(const std::vector<double>& negative, const std::vector<double>& positive);

// Spearman's rank correlation with mean ranks for ties; sizes equal, at least 2. 0 when either side is constant.
[[nodiscard]] double SpearmanCorrelation(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace bitplan
