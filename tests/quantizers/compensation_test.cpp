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
    const torch::Tensor values = rows.Compensated(fit, rows.OwnOutputs(moments), 0.05).Values();
    INFO(bits << " bits");
    CHECK(rows.OutputError(values, rows.OwnOutputs(moments)) <
          0.6 * rows.OutputError(rows.Values(fit), rows.OwnOutputs(moments)));
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
  CHECK(torch::allclose(rows.Compensated(fit, rows.OwnOutputs(moments), 1.0).Values(), codes * scale, 1e-4, 1e-6));
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
  const torch::Tensor values = rows.Compensated(fit, rows.OwnOutputs(torch::cat({first, second})), 0.1).Values();
  for (const int group : {0, 1}) {
    const WeightRows part(w.slice(0, 4 * group, 4 * group + 4), 0, {});
    const torch::Tensor alone =
        part.Compensated(part.Fit(3, "zero"), part.OwnOutputs(group == 0 ? first : second), 0.1).Values();
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
    const torch::Tensor values = rows.Compensated(rows.Fit(2, "half"), rows.OwnOutputs(moments), 0.1).Values();
    CHECK(torch::allclose(
        transposed.Compensated(transposed.Fit(2, "half"), transposed.OwnOutputs(moments), 0.1).Values(), values.t()));

    CHECK(rows.OutputError(values, rows.OwnOutputs(moments)) <
          rows.OutputError(rows.Values(rows.Fit(2, "half")), rows.OwnOutputs(moments)));
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
    const torch::Tensor values = rows.Compensated(rows.Fit(2, "auto"), rows.OwnOutputs(h), 0.05).Values();
    CHECK(values.isfinite().all().item<bool>());
    CHECK(values[2].abs().max().item<float>() == 0.0F);
  }
}

// x: what a quantized layer meets, its inputs in the float network with errors; y: what the float layer puts out.
struct Drifted {
  torch::Tensor inputs, outputs;

  Drifted(const torch::Tensor& weight, std::uint64_t seed) {
    torch::manual_seed(7);
    const torch::Tensor mixed = torch::randn({20, weight.size(1)});  // one distribution, whatever the seed draws of it
    torch::manual_seed(seed);
    const torch::Tensor clean = torch::randn({4000, 20}).matmul(mixed) + 0.3 * torch::randn({4000, weight.size(1)});
    inputs = 0.8 * clean + 0.2 * clean.roll(1, 1) + 0.2 * torch::randn_like(clean);
    outputs = clean.matmul(weight.t());
  }

  [[nodiscard]] OutputMoments Moments() const {
    const auto count = static_cast<double>(inputs.size(0));
    return {(inputs.t().matmul(inputs) / count).unsqueeze(0), outputs.t().matmul(inputs) / count,
            outputs.square().sum().item<double>() / count};
  }

  [[nodiscard]] double Error(const torch::Tensor& values) const {
    return (inputs.matmul(values.t()) - outputs).square().sum(1).mean().item<double>();
  }
};

TEST_CASE("rounding aims at the outputs of the float layer: what earlier layers did wrong is taken back") {
  const torch::Tensor w = Weights({6, 60});
  const Drifted seen(w, 1), other(w, 2);
  const OutputMoments moments = seen.Moments();
  for (const int bits : {1, 2, 3, 4}) {
    const WeightRows rows(w, 0, {});
    const QuantizedWeight fit = rows.Fit(bits, "auto");
    const torch::Tensor aimed = rows.Compensated(fit, moments, other.Moments()).Values();
    const torch::Tensor own = rows.Compensated(fit, rows.OwnOutputs(moments.inputs), 0.05).Values();
    INFO(bits << " bits");
    CHECK(rows.OutputError(aimed, moments) == Approx(seen.Error(aimed)).epsilon(1e-3));
    CHECK(seen.Error(aimed) < 0.9 * seen.Error(own));
    for (int row = 0; row < 6; ++row) {
      const float* const data = aimed[row].data_ptr<float>();
      CHECK(std::set<float>(data, data + 60).size() <= (1U << bits));
    }
  }
  // With levels to spare, not even the float weights come as close.
  const WeightRows rows(w, 0, {});
  CHECK(seen.Error(rows.Compensated(rows.Fit(8, "auto"), moments, 0.05).Values()) < seen.Error(w));
}

TEST_CASE("a target that few positions claim is held to the weights by as much as other positions ask for") {
  const torch::Tensor w = Weights({6, 60});
  Drifted few(w, 1);
  const Drifted other(w, 2), fresh(w, 4);
  few.inputs = few.inputs.slice(0, 0, 45);  // fewer than there are weights
  few.outputs = few.outputs.slice(0, 0, 45);
  const WeightRows rows(w, 0, {});
  const QuantizedWeight fit = rows.Fit(6, "auto");
  const double chosen = fresh.Error(rows.Compensated(fit, few.Moments(), other.Moments()).Values());
  const double fixed = fresh.Error(rows.Compensated(fit, few.Moments(), 0.05).Values());
  INFO(chosen << " against " << fixed);
  CHECK(chosen < 0.96 * fixed);
  // What was chosen is done again by all inputs.
  const double all = fresh.Error(rows.Compensated(fit, few.Moments(), other.Moments(), 0.9).Values());
  INFO(all << " by all");
  CHECK(all < 0.8 * chosen);
}

TEST_CASE("no single code can move to another level and lower the error") {
  const torch::Tensor w = Weights({3, 40});
  const Drifted data(w, 3);
  const OutputMoments moments = data.Moments();
  const WeightRows rows(w, 0, {});
  const QuantizedWeight fit = rows.Fit(2, "half");
  const torch::Tensor values = rows.Compensated(fit, moments, 0.0).Values();
  const double least = rows.OutputError(values, moments);
  int better = 0;
  for (int r = 0; r < 3; ++r) {
    const float step = (2.0F / 3.0F) * values[r].abs().max().item<float>();  // levels -3, -1, 1, 3 half steps
    for (int j = 0; j < 40; ++j) {
      for (const float change : {-step, step}) {
        torch::Tensor moved = values.clone();
        moved[r][j] += change;
        if (moved[r][j].abs().item<float>() > values[r].abs().max().item<float>() * 1.01F) continue;
        better += rows.OutputError(moved, moments) < least * (1.0 - 1e-4) ? 1 : 0;
      }
    }
  }
  CHECK(better <= 2);  // the damping of the target moves a tie or two
}

}  // namespace
}  // namespace bitplan
