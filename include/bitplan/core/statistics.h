// Statistics of paired measurements, on plain arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
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

// Paired comparison of two networks by a score that is a ratio of sums over images, (sum of gained) / (sum of
// possible): right positions among all that count, or what of a variance is explained. One entry for every image; the
// interval is the percentile bootstrap over images, so that positions of one image, which are alike, count as one draw.
// Equally long, not empty, the sum of `possible` > 0; mcnemar_p stays 1.
[[nodiscard]] PairedComparison CompareRatios(const std::vector<double>& float_gained,
                                             const std::vector<double>& quantized_gained,
                                             const std::vector<double>& possible, int resamples, RandomStream stream);

// The one-sided 95 % upper bound of a drop in accuracy, as a share: `lost` of `samples` are right in float alone,
// `gained` in the other network alone. The score bound of the difference of two counts, with half a count more for
// continuity: (b - c + z^2/2 + z sqrt(b + c + z^2/4)) / n, b = lost + 1/2. Without gained samples it is Wilson's bound
// of a small share. A true drop lies above it in at most 5 of 100 samples also where very few samples differ, where
// Wald's bound, with or without counts added to all cells, is below it in up to 18. samples >= 1.
[[nodiscard]] double DropUpperBound(std::int64_t lost, std::int64_t gained, std::int64_t samples);

// The mean of a - b over the same samples, with its 95 % interval by Student's t. Equally long, at least two entries.
struct MeanDifference {
  double mean = 0.0, ci_low = 0.0, ci_high = 0.0;
};
[[nodiscard]] MeanDifference PairedMean(const std::vector<float>& a, const std::vector<float>& b);

// What every sample adds to the score of a network: whether it is right, or its parts of the two sums that the score is
// the ratio of (CompareRatios). Refers to lists that must outlive it.
class Outcomes {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): a list of right and wrong answers is one
  Outcomes(const std::vector<std::uint8_t>* correct) : correct_(correct) {}
  // Error(kInternal) unless they are equally long and the sum of `possible` is > 0.
  Outcomes(const std::vector<double>* gained, const std::vector<double>* possible);

  [[nodiscard]] std::size_t size() const { return correct_ != nullptr ? correct_->size() : gained_->size(); }
  // The score is the mean of these over the samples. Of a ratio: with the sum of what is possible held fixed.
  [[nodiscard]] double operator[](std::size_t i) const {
    return correct_ != nullptr ? static_cast<double>((*correct_)[i]) : scale_ * (*gained_)[i];
  }
  [[nodiscard]] const std::vector<std::uint8_t>* correct() const { return correct_; }  // null of a ratio
  [[nodiscard]] const std::vector<double>& gained() const { return *gained_; }         // of a ratio
  [[nodiscard]] const std::vector<double>& possible() const { return *possible_; }     // of a ratio

 private:
  const std::vector<std::uint8_t>* correct_ = nullptr;
  const std::vector<double>*gained_ = nullptr, *possible_ = nullptr;
  double scale_ = 1.0;
};

// The one of the two above that is for them. Both of one kind, of the same samples.
[[nodiscard]] PairedComparison ComparePaired(const Outcomes& better, const Outcomes& worse, int resamples,
                                             RandomStream stream);

// One network measured with several calibration seeds.
using SeedOutcomes = std::vector<Outcomes>;
// Losses instead, nats.
using SeedLosses = std::vector<const std::vector<float>*>;

// Whether all seeds were measured on the same samples, in the same order, or every seed on samples of its own.
enum class SeedSamples { kShared, kOwn };

// The mean over seeds and samples of a - b, of two networks measured with the same seeds on the same samples.
struct SeedMean {
  double mean = 0.0;
  double ci_low = 0.0, ci_high = 0.0;  // 95 %, for other seeds and other samples
  double p = 1.0;                      // two-sided, of a mean of 0
  double spread = 0.0;                 // standard deviation over seeds of the mean over samples
};

// Seeds and samples are two random factors, d_si = mean + A_s + B_i + E_si: crossed where the samples are shared, so
// neither a bootstrap of samples within seeds nor one of seeds alone has the variance. With the mean squares of the
// two-way table of S seeds and N samples, seeds (MS_s, S - 1 degrees), samples (MS_i) and the rest (MS_e), the variance
// of the mean is (MS_s + MS_i - MS_e) / SN. It is estimated with MS_i - MS_e >= 0 and as at least MS_e, which few
// different samples may undercut by chance, and the interval is Student's with (MS_s + max(MS_i - MS_e, 0))^2 / (MS_s^2
// / (S - 1)) degrees (Satterthwaite's, the samples being many; Hillis, A comparison of denominator degrees of freedom
// methods for multiple observer ROC analysis, Statistics in Medicine 26, 2007: readers are seeds, cases are samples).
// Where every seed has samples of its own, as many as it has, the S means are independent: Student's interval with S -
// 1 degrees, their variance taken as at least that of their samples. Equal seeds give the interval over samples.
//
// Needs at least two seeds and two samples of each, as many of `a` as of `b`; Error(kInternal) otherwise.
[[nodiscard]] SeedMean CompareOverSeeds(const SeedOutcomes& a, const SeedOutcomes& b, SeedSamples samples);
[[nodiscard]] SeedMean CompareOverSeeds(const SeedLosses& a, const SeedLosses& b, SeedSamples samples);

// A share over ordered pairs of seeds: seed s makes statements[s] statements, of which returned[s][t] come true with
// seed t != s. The interval, 95 %, is Student's on the jackknife that leaves out one seed at a time, from both sides of
// its pairs (Arvesen, Jackknifing U-statistics, 1969), cut to 0..1; all of 0..1 where fewer than two seeds can be left
// out. Error(kInternal) without a statement.
struct SharePerPair {
  double share = 0.0, ci_low = 0.0, ci_high = 1.0;
};
[[nodiscard]] SharePerPair ShareOverPairs(const std::vector<double>& statements,
                                          const std::vector<std::vector<double>>& returned);

// The two ways in one: a single seed by the comparison over samples, several by CompareOverSeeds, whose p then stands
// in the place of McNemar's.
[[nodiscard]] PairedComparison ComparePaired(const SeedOutcomes& better, const SeedOutcomes& worse, SeedSamples samples,
                                             int resamples, const RandomStream& stream);
[[nodiscard]] MeanDifference PairedMean(const SeedLosses& a, const SeedLosses& b, SeedSamples samples);

// Two-sided exact binomial p of a split (b, c) of discordant pairs under p = 1/2; 1 when there are none.
[[nodiscard]] double McNemarExact(std::int64_t b, std::int64_t c);

// The best of one family of networks against the best of another, on the same samples.
struct FamilyLead {
  std::size_t first = 0, second = 0;  // the one of the highest score of either family, the earlier one of equals
  double lead = 0.0;                  // score(first) - score(second)
  // That the one ahead beats the other family: the largest two-sided p against its members (1 against one that it is
  // not ahead of), multiplied by the number of networks that the one ahead was chosen from (Bonferroni). 1 at a lead
  // of 0. One seed: McNemar's exact p, or Student's where the score is a ratio; several: CompareOverSeeds.
  double p = 1.0;
};
// All with the same seeds and, for each, the same samples in the same order; both families non-empty, networks
// distinct. `samples`: whether all seeds share them.
[[nodiscard]] FamilyLead CompareFamilies(const std::vector<SeedOutcomes>& first,
                                         const std::vector<SeedOutcomes>& second,
                                         SeedSamples samples = SeedSamples::kShared);

// The 97.5 % quantile of Student's t, half a two-sided 95 % interval in standard errors: by the expansion of Cornish
// and Fisher from 30 degrees of freedom on, by a sum over the density below; degrees >= 1, relative error below 1e-5.
[[nodiscard]] double StudentQuantile975(double degrees);

// A mean over independent repetitions (seeds) and its 95 % interval by Student's t, for the mean over all seeds that
// there could be.
struct MeanOverSeeds {
  std::vector<double> values;  // of every seed, in their order
  double mean = 0.0;
  std::optional<std::pair<double, double>> ci95;  // none for a single value
};
[[nodiscard]] MeanOverSeeds OverSeeds(std::vector<double> values);  // not empty

// Probability that |t| of Student's distribution is at least |statistic|; degrees >= 1,
// relative error below 1e-4 for |statistic| up to 5.
[[nodiscard]] double StudentTwoSided(double statistic, double degrees);

// Area under the ROC curve of a score that should be higher for `positive`: the probability that a random positive is
// above a random negative, ties counting half (Mann-Whitney). Both non-empty.
[[nodiscard]] double Auroc(const std::vector<double>& negative, const std::vector<double>& positive);

// Spearman's rank correlation with mean ranks for ties; sizes equal, at least 2. 0 when either side is constant.
[[nodiscard]] double SpearmanCorrelation(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace bitplan
