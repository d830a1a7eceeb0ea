#include "bitplan/bayes/uncertainty.h"

#include <torch/types.h>

#include <cmath>

#include "bitplan/core/error.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

Uncertainty Of(const std::vector<torch::Tensor>& draws) {
  UncertaintySum sum;
  for (const torch::Tensor& probabilities : draws) sum.Add(probabilities.log());
  CHECK(sum.draws() == static_cast<std::int64_t>(draws.size()));
  return sum.Take();
}

TEST_CASE("draws that agree leave no epistemic uncertainty, draws that disagree leave no aleatoric") {
  const torch::Tensor fair = torch::tensor({{0.5F, 0.5F}, {0.9F, 0.1F}});
  const Uncertainty agreed = Of({fair, fair, fair});
  CHECK(agreed.total[0].item<double>() == Approx(std::log(2.0)));
  CHECK(agreed.aleatoric[0].item<double>() == Approx(std::log(2.0)));
  CHECK(agreed.epistemic.abs().max().item<double>() < 1e-12);

  const Uncertainty split = Of({torch::tensor({{1.0F, 0.0F}}), torch::tensor({{0.0F, 1.0F}})});
  CHECK(split.total[0].item<double>() == Approx(std::log(2.0)));
  CHECK(split.aleatoric[0].item<double>() == Approx(0.0).margin(1e-12));
  CHECK(split.epistemic[0].item<double>() == Approx(std::log(2.0)));
}

TEST_CASE("the parts add up, and epistemic uncertainty is the mutual information of class and draw") {
  torch::manual_seed(2);
  std::vector<torch::Tensor> draws;
  for (int t = 0; t < 7; ++t) draws.push_back((torch::randn({5, 4}) * 2.0).softmax(1));
  const Uncertainty uncertainty = Of(draws);
  CHECK(torch::allclose(uncertainty.total, uncertainty.aleatoric + uncertainty.epistemic));
  // Mean divergence of the draws from their mean.
  const torch::Tensor mean = uncertainty.predictive.to(torch::kFloat64);
  torch::Tensor divergence = torch::zeros({5}, torch::kFloat64);
  for (const torch::Tensor& draw : draws) {
    const torch::Tensor p = draw.to(torch::kFloat64);
    divergence += (p * (p.log() - mean.log())).sum(1) / 7.0;
  }
  CHECK(torch::allclose(uncertainty.epistemic, divergence, 1e-5, 1e-6));
  CHECK(torch::allclose(uncertainty.predictive.sum(1), torch::ones(5)));
}

TEST_CASE("leaving blocks of draws out gives the means of the others, and the error of a change between networks") {
  torch::manual_seed(3);
  std::vector<torch::Tensor> draws, others;
  for (int t = 0; t < 23; ++t) {
    draws.push_back((torch::randn({6, 4}) * 2.0).softmax(1));
    others.push_back((draws.back().log() + 0.3 * torch::randn({6, 4})).softmax(1));
  }
  const Uncertainty all = Of(draws), changed = Of(others);
  REQUIRE(all.epistemic_without.size() == 10);
  std::vector<torch::Tensor> rest;  // without block 2
  for (int t = 0; t < 23; ++t) {
    if (t % 10 != 2) rest.push_back(draws[static_cast<std::size_t>(t)]);
  }
  const Uncertainty without = Of(rest);
  CHECK(all.aleatoric_without[2] == Approx(without.aleatoric.mean().item<double>()));
  CHECK(all.epistemic_without[2] == Approx(without.epistemic.mean().item<double>()));
  CHECK(Of({draws[0]}).epistemic_without.empty());

  const double before = all.aleatoric.mean().item<double>(), after = changed.aleatoric.mean().item<double>();
  const RelativeChange change = CompareMeans(before, after, all.aleatoric_without, changed.aleatoric_without);
  CHECK(change.value == Approx(after / before - 1.0));
  CHECK(change.standard_error > 0.0);
  CHECK(CompareMeans(before, before, all.aleatoric_without, all.aleatoric_without).standard_error ==
        Approx(0.0).margin(1e-12));
  CHECK_THROWS_AS(CompareMeans(before, after, all.aleatoric_without, {}), Error);
}

TEST_CASE("the jackknife over draws finds how much other draws would have changed a mean") {
  // Means of 40 independent values of variance 1 about 10, relative to a constant: standard error 1 / (10 sqrt 40).
  torch::manual_seed(4);
  double squares = 0.0;
  for (int trial = 0; trial < 200; ++trial) {
    const torch::Tensor values = torch::randn({10, 4}, torch::kFloat64) + 10.0;
    std::vector<double> without;
    for (int b = 0; b < 10; ++b) without.push_back((values.sum() - values[b].sum()).item<double>() / 36.0);
    const auto change = CompareMeans(10.0, values.mean().item<double>(), std::vector<double>(10, 10.0), without);
    squares += change.standard_error * change.standard_error / 200.0;
  }
  CHECK(std::sqrt(squares) == Approx(0.1 / std::sqrt(40.0)).epsilon(0.1));
}

TEST_CASE("no draws are no answer") { CHECK_THROWS_AS(UncertaintySum().Take(), Error); }

TEST_CASE("opposite changes of two kinds of input cancel in the mean of all, not in that of a kind") {
  torch::manual_seed(3);
  const std::int64_t n = 2048;
  const torch::Tensor ambiguous = torch::arange(n).remainder(2).eq(1);
  const torch::Tensor before = torch::rand({n}) * 0.1 + 0.95;
  const torch::Tensor after = before * torch::where(ambiguous, torch::full({n}, 0.74), torch::full({n}, 1.26));
  CHECK(std::abs(ChangeOf(before, after, torch::ones({n}, torch::kBool)).value) < 0.01);
  CHECK(ChangeOf(before, after, ambiguous).value == Approx(-0.26).epsilon(1e-4));
  CHECK(ChangeOf(before, after, ambiguous.logical_not()).value == Approx(0.26).epsilon(1e-4));
  CHECK(ChangeOf(before, after, ambiguous).at_most >= 0.2599);
}

TEST_CASE("the bound of a change covers it at least as often as it says, also where images share draws") {
  constexpr double kTrue = 0.02;
  int covered = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    torch::manual_seed(seed);
    const torch::Tensor before = torch::rand({4096}) + 0.5;
    const torch::Tensor of_block = (torch::randn({32}) * 0.05).repeat_interleave(128);
    const torch::Tensor after = before * (1.0 + kTrue + of_block + 0.1 * torch::randn({4096}));
    covered += ChangeOf(before, after, torch::ones({4096}, torch::kBool)).at_most >= kTrue ? 1 : 0;
  }
  CHECK(covered >= 275);  // 95 % of 300 is 285, four standard errors 15
  CHECK(covered < 300);
  // Few and uneven blocks, of which the last holds two images.
  int few = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    torch::manual_seed(seed);
    const torch::Tensor before = torch::rand({258}) + 0.5;
    const torch::Tensor after = before * (1.0 + kTrue + 0.1 * torch::randn({258}));
    few += ChangeOf(before, after, torch::ones({258}, torch::kBool)).at_most >= kTrue ? 1 : 0;
  }
  CHECK(few >= 270);
  CHECK(std::isinf(ChangeOf(torch::ones({100}), torch::ones({100}), torch::ones({100}, torch::kBool)).at_most));
}

}  // namespace
}  // namespace bitplan
