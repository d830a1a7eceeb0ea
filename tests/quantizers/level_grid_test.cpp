#include "bitplan/quantizers/level_grid.h"

#include <torch/types.h>

#include <cmath>

#include "bitplan/core/error.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

// Standard deviations as posteriors have them: log-normal over a few powers of ten.
torch::Tensor Sigmas(std::int64_t count) {
  torch::manual_seed(4);
  return (torch::randn({count / 4, 4}) * 1.2 - 4.0).exp();
}

double RelativeError(const torch::Tensor& values, const LevelGrid& grid) {
  return (LevelValues(LevelCodes(values, grid), grid).log() - values.log()).square().mean().sqrt().item<double>();
}

TEST_CASE("levels that are uniform in log sigma keep ratios far better than levels uniform in sigma") {
  const torch::Tensor sigmas = Sigmas(4000);
  for (const int bits : {2, 3, 4, 6}) {
    INFO(bits);
    const double logarithmic = RelativeError(sigmas, FitLevelGrid(sigmas, bits, "log"));
    CHECK(logarithmic < 0.7 * RelativeError(sigmas, FitLevelGrid(sigmas, bits, "linear")));
  }
}

TEST_CASE("every further bit about halves the error in log sigma") {
  const torch::Tensor sigmas = Sigmas(4000);
  for (int bits = 2; bits <= 7; ++bits) {
    const double ratio = RelativeError(sigmas, FitLevelGrid(sigmas, bits + 1, "log")) /
                         RelativeError(sigmas, FitLevelGrid(sigmas, bits, "log"));
    INFO(bits);
    CHECK(ratio > 0.4);
    CHECK(ratio < 0.65);
  }
}

TEST_CASE("scaling all values shifts the logarithmic grid and leaves the codes") {
  const torch::Tensor sigmas = Sigmas(400);
  const LevelGrid grid = FitLevelGrid(sigmas, 3, "log"), scaled = FitLevelGrid(sigmas * 1024.0, 3, "log");
  CHECK(scaled.step == Approx(grid.step).epsilon(1e-4));
  CHECK(scaled.low == Approx(grid.low + std::log(1024.0)).epsilon(1e-4));
  CHECK(LevelCodes(sigmas * 1024.0, scaled).ne(LevelCodes(sigmas, grid)).sum().item<std::int64_t>() <= 2);
}

TEST_CASE("values on the levels come back, all codes within the bits, values alike take one level") {
  for (const std::string scale : {"log", "linear"}) {
    const LevelGrid grid{2, scale, scale == "log" ? -3.0 : 0.5, 0.25};
    const torch::Tensor codes = torch::tensor({0, 1, 2, 3}, torch::kUInt8);
    CHECK(torch::equal(LevelCodes(LevelValues(codes, grid), grid), codes));
    const torch::Tensor far = torch::tensor({1e-9F, 1e9F});
    CHECK(torch::equal(LevelCodes(far, grid), torch::tensor({0, 3}, torch::kUInt8)));
    const torch::Tensor alike = torch::full({5}, 0.02F);
    const LevelGrid one = FitLevelGrid(alike, 4, scale);
    CHECK(torch::allclose(LevelValues(LevelCodes(alike, one), one), alike));
  }
}

TEST_CASE("what has no logarithm, and scales that are not known, are refused") {
  CHECK_THROWS_AS(FitLevelGrid(torch::tensor({1.0F, 0.0F}), 4, "log"), Error);
  CHECK_THROWS_AS(FitLevelGrid(torch::tensor({1.0F, INFINITY}), 4, "log"), Error);
  CHECK_THROWS_WITH(FitLevelGrid(torch::ones(2), 4, "lgo"), ContainsSubstring("nearest: log"));
}

}  // namespace
}  // namespace bitplan
