#include "quantizers/output_errors.h"

#include <limits>

#include "quantizers/weights.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

// Some inputs strong, some weak, all of them correlated: [groups, positions, n].
torch::Tensor UnequalInputs(std::int64_t groups, std::int64_t positions, std::int64_t n) {
  torch::manual_seed(4);
  const torch::Tensor strength = torch::linspace(-2.0, 2.0, n).exp();
  return (torch::randn({groups, positions, n}) + torch::randn({groups, positions, 1})) * strength;
}

OutputErrors::Tried TriedWith(const OutputErrors& errors, const torch::Tensor& scales, rounding::CodeRange range,
                              const torch::Tensor& bound = {}) {
  OutputErrors::Tried tried;
  errors.Try(scales * 2.0, range, {}, tried);  // what another candidate leaves counts nothing
  errors.Try(scales, range, bound, tried);
  return tried;
}

torch::Tensor Rounded(const torch::Tensor& rows, const torch::Tensor& scales, rounding::CodeRange range) {
  torch::Tensor values = torch::empty_like(rows);
  for (std::int64_t r = 0; r < rows.size(0); ++r) {
    rounding::Round(rows[r].data_ptr<float>(), rows.size(1), scales[r].item<float>(), range,
                    values[r].data_ptr<float>());
  }
  return values;
}

// By the outputs themselves: float64 [channels].
torch::Tensor ByOutputs(const torch::Tensor& changes, const torch::Tensor& inputs) {
  const torch::Tensor outputs = changes.to(torch::kFloat64)
                                    .reshape({inputs.size(0), -1, inputs.size(2)})
                                    .matmul(inputs.to(torch::kFloat64).transpose(1, 2));
  return outputs.square().mean(2).reshape({-1});
}

TEST_CASE("output errors are those of the outputs, with more positions than inputs and with fewer, in groups too") {
  for (const std::int64_t groups : {1, 2}) {
    for (const std::int64_t positions : {40, 700}) {
      for (const std::int64_t n : {20, 300}) {
        INFO(groups << " groups, " << positions << " positions, " << n << " inputs");
        const torch::Tensor rows = Weights({12, n}), inputs = UnequalInputs(groups, positions, n);
        const OutputErrors errors(inputs, rows);
        const torch::Tensor scales = torch::linspace(0.02, 0.2, 12);
        const rounding::CodeRange range = rounding::ZeroGrid(3);
        const torch::Tensor changes = Rounded(rows, scales, range) - rows;
        const OutputErrors::Tried tried = TriedWith(errors, scales, range);
        CHECK(torch::allclose(tried.errors, ByOutputs(changes, inputs), 1e-4));
        // What refitting a scale needs: mean products of the outputs, quantized and in float.
        const OutputErrors::Products products = errors.ProductsOf(tried.outputs);
        const torch::Tensor quantized = ByOutputs(changes + rows, inputs);
        const torch::Tensor both = (quantized + ByOutputs(rows, inputs) - ByOutputs(changes, inputs)) / 2.0;
        CHECK(torch::allclose(products.with_itself, quantized, 1e-3));
        CHECK(torch::allclose(products.with_own, both, 1e-3, 1e-4 * both.abs().max().item<double>()));
      }
    }
  }
}

TEST_CASE("a channel that is given up has reached its bound, and every other one its whole error") {
  const torch::Tensor rows = Weights({50, 700}), inputs = UnequalInputs(1, 900, 700);
  const OutputErrors errors(inputs, rows);
  const torch::Tensor scales = torch::full({50}, 0.05);
  const rounding::CodeRange range = rounding::HalfGrid(2);
  const OutputErrors::Tried whole = TriedWith(errors, scales, range);
  const torch::Tensor bound = whole.errors * torch::linspace(0.05, 1.5, 50);
  const OutputErrors::Tried tried = TriedWith(errors, scales, range, bound);
  const torch::Tensor below = whole.errors.lt(bound);
  REQUIRE(below.sum().item<int>() > 10);
  REQUIRE(below.sum().item<int>() < 40);
  CHECK(torch::allclose(tried.errors.masked_select(below), whole.errors.masked_select(below), 1e-5));
  CHECK(tried.errors.ge(bound).eq(below.logical_not()).all().item<bool>());
  const torch::Tensor kept = below.nonzero().squeeze(1);
  CHECK(torch::allclose(tried.outputs.index_select(0, kept), whole.outputs.index_select(0, kept), 1e-4, 1e-5));
  CHECK(tried.errors.lt(whole.errors).any().item<bool>());  // otherwise nothing was saved
  CHECK(TriedWith(errors, scales, range, whole.errors * 1e-6).errors.lt(whole.errors).all().item<bool>());
}

TEST_CASE("a search that gives candidates up early finds what trying all of them in full finds") {
  for (const int bits : {2, 3, 5, 8}) {
    for (const bool half : {false, true}) {
      const rounding::CodeRange range = half ? rounding::HalfGrid(bits) : rounding::ZeroGrid(bits);
      for (const bool weighted : {false, true}) {
        const torch::Tensor w = Weights({1500}, 20 + static_cast<std::uint64_t>(bits)).pow(3);
        const torch::Tensor importance = torch::rand({1500});
        const float* const weight = weighted ? importance.data_ptr<float>() : nullptr;
        const rounding::BestScale found = rounding::FindScale(w.data_ptr<float>(), weight, 1500, range);
        INFO(bits << " bits" << (half ? ", half grid" : "") << (weighted ? ", weighted" : ""));
        const float largest = w.abs().max().item<float>(), reach = std::max(-range.low, range.high);
        double least = std::numeric_limits<double>::infinity();
        for (int k = -96; k <= 96; ++k) {
          if (k == 0) continue;
          const float scale = largest / reach * 1.1F / 48.0F * static_cast<float>(k);
          least = std::min(least, rounding::Measure(w.data_ptr<float>(), weight, 1500, scale, range).error);
        }
        CHECK(found.error <= least * (1.0 + 1e-5));
        CHECK(rounding::Measure(w.data_ptr<float>(), weight, 1500, found.scale, range).error == Approx(found.error));
      }
    }
  }
}

}  // namespace
}  // namespace bitplan
