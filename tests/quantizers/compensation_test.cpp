#include <set>

#include "bitplan/quantizers/quantizer.h"
#include "quantizers/weights.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

// Second moments of strongly correlated inputs, [1, n, n].
torch::Tensor Correlated(std::int64_t n, std::uint64_t seed = 5) {
  torch::manual_seed(seed);
  const torch::Tensor x =
      torch::randn({4 * n, n / 3}).matmul(torch::randn({n / 3, n})) + 0.3 * torch::randn({4 * n, n});
  return (x.t().matmul(x) / static_cast<double>(x.size(0))).unsqueeze(0);
}

TEST_CASE("errors of correlated inputs cancel, and every row keeps its levels") {
  const torch::Tensor w = Weights({6, 60});
  const torch::Tensor moments = Correlated(60);
  for (const int bits : {1, 2, 3, 4, 8}) {
    const WeightRows rows(w, 0, {});
    const QuantizedWeight fit = rows.Fit(bits, "auto");
    const torch::Tensor values = rows.CompensatedValues(fit, rows.OwnOutputs(moments), 0.05);
    INFO(bits << " bits");
    CHECK(rows.OutputError(values, rows.OwnOutputs(moments)) < 0.6 * rows.OutputError(rows.Values(fit), rows.OwnOutputs(moments)));
    for (int row = 0; row < 6; ++row) {
      const float* const data = values[row].data_ptr<float>();
      CHECK(std::set<float>(data, data + 60).size() <= (1U << bits));
    }
  }
}

TEST_CASE("fully shrunk moments give the nearest levels, with the scale of least weighted error") {
  const torch::Tensor w = Weights({4, 50});
  const torch::Tensor moments = Correlated(50);
  const torch::Tensor power = moments[0].diagonal();
  const WeightRows rows(w, 0, {});
  const QuantizedWeight fit = rows.Fit(3, "zero");
  const torch::Tensor codes = rows.Values(fit) / fit.scales.unsqueeze(1);
  const torch::Tensor scale = (codes * w * power).sum(1, true) / (codes * codes * power).sum(1, true);
  CHECK(torch::allclose(rows.CompensatedValues(fit, rows.OwnOutputs(moments), 1.0), codes * scale, 1e-4, 1e-6));
}

TEST_CASE("the output error is that of the outputs") {
  torch::manual_seed(9);
  const torch::Tensor x = torch::randn({500, 20}), w = Weights({3, 20});
  const WeightRows rows(w, 0, {});
  const torch::Tensor values = rows.Values(rows.Fit(2, "auto"));
  const double expected = x.matmul((values - w).t()).square().sum(1).mean().item<double>();
  const torch::Tensor moments = (x.t().matmul(x) / 500.0).unsqueeze(0);
  CHECK(rows.OutputError(values, rows.OwnOutputs(moments)) == Approx(expected).epsilon(1e-4));
}

TEST_CASE("rows of a group are rounded for the inputs of that group") {
  const torch::Tensor w = Weights({8, 3, 3, 3});
  const torch::Tensor first = Correlated(27, 1), second = Correlated(27, 2);
  const WeightRows rows(w, 0, {});
  const QuantizedWeight fit = rows.Fit(3, "zero");
  const torch::Tensor values = rows.CompensatedValues(fit, rows.OwnOutputs(torch::cat({first, second})), 0.1);
  for (const int group : {0, 1}) {
    const WeightRows part(w.slice(0, 4 * group, 4 * group + 4), 0, {});
    const torch::Tensor alone = part.CompensatedValues(part.Fit(3, "zero"), part.OwnOutputs(group == 0 ? first : second), 0.1);
    CHECK(torch::allclose(values.slice(0, 4 * group, 4 * group + 4), alone));
  }
}

TEST_CASE("a transposed weight and one scale for all are compensated alike") {
  const torch::Tensor w = Weights({5, 40});
  const torch::Tensor moments = Correlated(40);
  for (const std::string granularity : {"channel", "tensor"}) {
    QuantizerOptions options;
    options.granularity = granularity;
    const WeightRows rows(w, 0, options), transposed(w.t(), 1, options);
    const torch::Tensor values = rows.CompensatedValues(rows.Fit(2, "half"), rows.OwnOutputs(moments), 0.1);
    CHECK(torch::allclose(transposed.CompensatedValues(transposed.Fit(2, "half"), transposed.OwnOutputs(moments), 0.1), values.t()));

    CHECK(rows.OutputError(values, rows.OwnOutputs(moments)) < rows.OutputError(rows.Values(rows.Fit(2, "half")), rows.OwnOutputs(moments)));
  }
}

TEST_CASE("inputs that are always zero, and rows of zeros, do no harm") {
  torch::Tensor w = Weights({4, 30});
  w[2].zero_();
  torch::Tensor moments = Correlated(30);
  moments[0].slice(0, 10, 20).zero_();
  moments[0].slice(1, 10, 20).zero_();
  const WeightRows rows(w, 0, {});
  const torch::Tensor residue = -1e-7 * Correlated(30);  // of a covariance of inputs that never vary
  for (const torch::Tensor& h : {moments, torch::zeros_like(moments), residue}) {
    const torch::Tensor values = rows.CompensatedValues(rows.Fit(2, "auto"), rows.OwnOutputs(h), 0.05);
    CHECK(values.isfinite().all().item<bool>());
    CHECK(values[2].abs().max().item<float>() == 0.0F);
  }
}

}  // namespace
}  // namespace bitplan
