#include "bitplan/bayes/uncertainty.h"

#include <torch/torch.h>

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

TEST_CASE("no draws are no answer") { CHECK_THROWS_AS(UncertaintySum().Take(), Error); }

}  // namespace
}  // namespace bitplan
