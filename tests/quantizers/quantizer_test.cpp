#include "bitplan/quantizers/quantizer.h"

#include <cmath>
#include <set>

#include "bitplan/core/error.h"
#include "quantizers/weights.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

double SquaredError(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).square().sum().item<double>(); }

torch::Tensor QuantizedValues(const torch::Tensor& w, int bits, const std::string& grid = "auto",
                              const QuantizerOptions& options = {}, int output_dim = 0) {
  const WeightRows rows(w, output_dim, options);
  return rows.Values(rows.Fit(bits, grid));
}

TEST_CASE("one bit is the sign times the channel's mean magnitude, zero bits is zero") {
  const torch::Tensor w = Weights({4, 3, 3, 3});
  const torch::Tensor mean = w.abs().mean({1, 2, 3}, true);
  CHECK(torch::allclose(QuantizedValues(w, 1), torch::where(w >= 0, mean, -mean)));
  CHECK(QuantizedValues(w, 0).abs().max().item<float>() == 0.0F);
}

TEST_CASE("a channel takes at most 2^b values, all on its grid") {
  const torch::Tensor w = Weights({3, 500});
  for (const std::string grid : {"zero", "half"}) {
    for (int bits = 2; bits <= 8; ++bits) {
      const WeightRows rows(w, 0, {});
      const QuantizedWeight fit = rows.Fit(bits, grid);
      const torch::Tensor values = rows.Values(fit);
      for (int row = 0; row < 3; ++row) {
        const float scale = fit.scales[row].item<float>();
        std::set<float> levels;
        for (int i = 0; i < 500; ++i) {
          const float value = values[row][i].item<float>();
          levels.insert(value);
          const double code = value / scale - (grid == "half" ? 0.5 : 0.0);
          REQUIRE(std::abs(code - std::round(code)) < 1e-3);
        }
        CHECK(levels.size() <= (1U << bits));
      }
    }
  }
}

TEST_CASE("no scale of a fine scan has a smaller squared error than the one chosen") {
  const torch::Tensor w = Weights({1, 300});
  for (const std::string grid : {"zero", "half"}) {
    for (const int bits : {2, 3, 4, 6}) {
      const WeightRows rows(w, 0, {});
      const double chosen = rows.Fit(bits, grid).error;
      const double low = grid == "zero" ? -std::pow(2, bits - 1) : -(std::pow(2, bits) - 1) / 2;
      const double high = grid == "zero" ? -low - 1 : -low;
      const double offset = grid == "zero" ? 0.0 : 0.5;
      double best = 1e30;
      for (int k = 1; k <= 3000; ++k) {
        for (const double sign : {1.0, -1.0}) {
          const double scale = sign * w.abs().max().item<double>() * 1.2 * k / 3000.0 / std::abs(low);
          const torch::Tensor code = ((w / scale - offset).round() + offset).clamp(low, high);
          best = std::min(best, SquaredError(code * scale, w));
        }
      }
      INFO(grid << " " << bits << " bits");
      CHECK(chosen <= best * 1.02);
    }
  }
}

TEST_CASE("the range 'max' clips no weight") {
  const torch::Tensor w = Weights({5, 200}) + 0.05;
  QuantizerOptions options;
  options.range = "max";
  for (int bits = 2; bits <= 8; ++bits) {
    const WeightRows rows(w, 0, options);
    const QuantizedWeight fit = rows.Fit(bits, "zero");
    const torch::Tensor error = (rows.Values(fit) - w).abs().amax(1);
    CHECK((error <= fit.scales.abs() * 0.5001).all().item<bool>());
  }
}

TEST_CASE("at two and three bits the grid with the smaller error is chosen") {
  const torch::Tensor away_from_zero =
      torch::sign(Weights({2, 400})) * (0.2 + 0.1 * torch::sign(Weights({2, 400}, 5))) + Weights({2, 400}, 7) * 0.01;
  const torch::Tensor mostly_zero =
      torch::where(torch::rand({2, 400}) < 0.8, torch::zeros({2, 400}), Weights({2, 400}));
  CHECK(WeightRows(away_from_zero, 0, {}).Fit(2, "auto").grid == "half");
  CHECK(WeightRows(mostly_zero, 0, {}).Fit(2, "auto").grid == "zero");
  for (const int bits : {2, 3}) {
    const WeightRows rows(Weights({4, 99}), 0, {});
    CHECK(rows.Fit(bits, "auto").error == std::min(rows.Fit(bits, "zero").error, rows.Fit(bits, "half").error));
  }
}

TEST_CASE("a longer side of the grid lies where the channel needs it") {
  torch::Tensor w = torch::full({1, 100}, 0.01F);
  w[0][0] = 2.0F;
  w[0][1] = 1.0F;
  w[0][2] = -1.0F;
  CHECK(WeightRows(w, 0, {}).Fit(2, "zero").scales.item<float>() < 0.0F);
  CHECK(WeightRows(-w, 0, {}).Fit(2, "zero").scales.item<float>() > 0.0F);
}

TEST_CASE("a consumer without negative scales gets the best of those above zero") {
  const torch::Tensor w = Weights({6, 300}) + 0.04;  // the long side lies above zero
  for (const std::string range : {"mse", "max"}) {
    QuantizerOptions options;
    options.range = range;
    for (int bits = 2; bits <= 8; ++bits) {
      INFO(range << " " << bits);
      const QuantizedWeight free = WeightRows(w, 0, options).Fit(bits, "zero");
      if (bits <= 4) CHECK(free.scales.lt(0).any().item<bool>());
      options.limits.negative_scales = false;
      const WeightRows rows(w, 0, options);
      const QuantizedWeight fit = rows.Fit(bits, "zero");
      CHECK(fit.scales.gt(0).all().item<bool>());
      options.limits.negative_scales = true;
      if (range == "max") continue;
      CHECK(fit.error >= free.error * 0.98);
      QuantizedWeight tried = fit;
      for (double factor = 0.6; factor < 1.6; factor += 0.01) {
        tried.scales = fit.scales * factor;
        CHECK(SquaredError(rows.Values(tried), w) >= fit.error * 0.97);
      }
    }
  }
}

TEST_CASE("a consumer's grids are the only ones that are chosen among, and its scales have its type") {
  const torch::Tensor w = Weights({5, 400});
  QuantizerOptions options;
  options.range = "mse";
  options.limits = {.zero = {2, 4}, .half = {1, 3}, .float16_scales = true};
  const WeightRows rows(w, 0, options);
  const std::vector<std::pair<int, std::string>> grids = {{1, "half"}, {2, "zero"}, {3, "half"}, {4, "zero"}};
  for (const auto& [bits, grid] : grids) {
    const QuantizedWeight fit = rows.Fit(bits, "auto");
    CHECK(fit.grid == grid);
    CHECK(torch::equal(fit.scales.to(torch::kFloat16).to(torch::kFloat32), fit.scales));
    CHECK(fit.error == Approx(SquaredError(rows.Values(fit), w)).epsilon(1e-4));
  }
  // Without a number of float16 near it a scale stays as it is.
  const WeightRows tiny(w * 1e-6, 0, options);
  CHECK(tiny.Fit(4, "zero").scales.gt(0).any().item<bool>());
}

TEST_CASE("every further bit makes the error smaller") {
  const torch::Tensor w = Weights({6, 3, 5, 5});
  double previous = SquaredError(QuantizedValues(w, 0), w);
  for (int bits = 1; bits <= 8; ++bits) {
    const double error = SquaredError(QuantizedValues(w, bits), w);
    CHECK(error < previous);
    previous = error;
  }
}

TEST_CASE("the error that a fit states is the error of its values") {
  const torch::Tensor w = Weights({6, 777});
  const torch::Tensor importance = torch::rand({6, 777});
  for (const std::string range : {"max", "mse", "posterior"}) {
    QuantizerOptions options;
    options.range = range;
    const WeightRows rows(w, 0, options, {importance, {}});
    for (int bits = 0; bits <= 8; ++bits) {
      const QuantizedWeight fit = rows.Fit(bits, "auto");
      torch::Tensor error = (rows.Values(fit) - w).square();
      if (range == "posterior") error = error * importance;
      INFO(range << " " << bits);
      CHECK(fit.error == Approx(error.sum().item<double>()).epsilon(1e-3));
    }
  }
}

TEST_CASE("the range 'posterior' lowers the weighted error, and rows without information fall back to plain error") {
  const torch::Tensor w = Weights({4, 400});
  torch::Tensor importance = torch::rand({4, 400}).pow(8);
  importance[2].zero_();
  QuantizerOptions weighted;
  weighted.range = "posterior";
  const WeightRows by_posterior(w, 0, weighted, {importance, {}});
  const WeightRows by_mse(w, 0, {});
  for (const int bits : {1, 2, 3, 4}) {
    const torch::Tensor a = by_posterior.Values(by_posterior.Fit(bits, "zero"));
    const torch::Tensor b = by_mse.Values(by_mse.Fit(bits, "zero"));
    CHECK(((a - w).square() * importance).sum().item<double>() < ((b - w).square() * importance).sum().item<double>());
    CHECK(torch::equal(a[2], b[2]));
  }
}

TEST_CASE("channels of a transposed weight are quantized like those of the weight") {
  const torch::Tensor w = Weights({7, 50});
  CHECK(torch::equal(QuantizedValues(w.t().contiguous(), 3, "auto", {}, 1).t(), QuantizedValues(w, 3)));
}

TEST_CASE("granularity 'tensor' keeps one scale") {
  QuantizerOptions options;
  options.granularity = "tensor";
  const WeightRows rows(Weights({7, 50}), 0, options);
  CHECK(rows.Fit(4, "auto").scales.numel() == 1);
  CHECK(rows.rows() == 1);
}

TEST_CASE("the dot product with the rounding error is that of the dense tensors") {
  const torch::Tensor w = Weights({5, 2, 3, 3});
  const torch::Tensor g = Weights({5, 2, 3, 3}, 9);
  const WeightRows rows(w, 0, {});
  for (int bits = 0; bits <= 8; ++bits) {
    const QuantizedWeight fit = rows.Fit(bits, "auto");
    const double dense = (g * (rows.Values(fit) - w)).sum().item<double>();
    CHECK(rows.ErrorDots({fit}, g)[0] == Approx(dense).epsilon(1e-4).margin(1e-7));
  }
}

TEST_CASE("a channel of zeros stays zero at every width") {
  torch::Tensor w = Weights({3, 40});
  w[1].zero_();
  for (int bits = 0; bits <= 8; ++bits) CHECK(QuantizedValues(w, bits)[1].abs().max().item<float>() == 0.0F);
}

TEST_CASE("range 'posterior' without a posterior and unknown words are usage errors") {
  QuantizerOptions options;
  options.range = "posterior";
  CHECK_THROWS_AS(WeightRows(Weights({2, 2}), 0, options), Error);
  options.range = "mes";
  CHECK_THROWS_WITH(WeightRows(Weights({2, 2}), 0, options), ContainsSubstring("nearest: mse"));
}

// Inputs [groups, positions, n] that are far from white: correlated, some much larger than others.
torch::Tensor SkewedInputs(std::int64_t groups, std::int64_t positions, std::int64_t n) {
  torch::manual_seed(5);
  const torch::Tensor mix = torch::randn({groups, n, n}) / std::sqrt(static_cast<double>(n));
  return torch::randn({groups, positions, n}).matmul(mix) * torch::logspace(-1, 1, n);
}

double OutputErrorOf(const torch::Tensor& values, const torch::Tensor& w, const torch::Tensor& inputs) {
  const torch::Tensor errors = (values - w).reshape({inputs.size(0), -1, inputs.size(2)});
  return errors.matmul(inputs.transpose(1, 2)).square().mean(2).sum().item<double>();
}

TEST_CASE("the range 'output' lowers the error of the outputs where inputs are not alike") {
  const torch::Tensor w = Weights({8, 4, 3, 3});
  const torch::Tensor inputs = SkewedInputs(2, 4000, 36);
  for (const std::string granularity : {"channel", "tensor"}) {
    QuantizerOptions options;
    options.granularity = granularity;
    options.range = "output";
    const WeightRows by_output(w, 0, options, {{}, inputs});
    options.range = "mse";
    const WeightRows by_weights(w, 0, options);
    for (const int bits : {1, 2, 3, 4}) {
      const QuantizedWeight fit = by_output.Fit(bits, "zero");
      INFO(granularity << " " << bits);
      CHECK(fit.range == "output");
      const double error = OutputErrorOf(by_output.Values(fit), w, inputs);
      CHECK(error < OutputErrorOf(by_weights.Values(by_weights.Fit(bits, "zero")), w, inputs));
      // What it states is the error at the last quarter of the positions, which choose.
      CHECK(fit.error == Approx(OutputErrorOf(by_output.Values(fit), w, inputs.slice(1, 3000))).epsilon(1e-3));
    }
  }
}

TEST_CASE("one bit by its outputs has the least-squares scale") {
  const torch::Tensor w = Weights({1, 20});
  const torch::Tensor inputs = SkewedInputs(1, 400, 20);
  QuantizerOptions options;
  options.range = "output";
  const WeightRows rows(w, 0, options, {{}, inputs});
  const torch::Tensor seen = inputs[0].slice(0, 0, 300);
  const torch::Tensor target = seen.mv(w[0]), sign = seen.mv(torch::where(w[0] >= 0, 1.0, -1.0).to(torch::kFloat32));
  const double expected = (2.0 * target.dot(sign) / sign.dot(sign)).item<double>();
  CHECK(rows.Fit(1, "auto").scales.item<double>() == Approx(expected).epsilon(1e-4));
}

TEST_CASE("the range 'auto' takes what has the smaller output error at the positions that choose") {
  const torch::Tensor w = Weights({8, 36});
  const torch::Tensor inputs = SkewedInputs(1, 80, 36);  // few: scales fitted to them may not carry over
  QuantizerOptions options;
  options.range = "auto";
  const WeightRows rows(w, 0, options, {{}, inputs});
  for (const int bits : {1, 2, 3, 4}) {
    const QuantizedWeight chosen = rows.Fit(bits, LevelChoice{"zero", "auto"});
    const QuantizedWeight output = rows.Fit(bits, LevelChoice{"zero", "output"});
    const QuantizedWeight weights = rows.Fit(bits, LevelChoice{"zero", "mse"});
    const double of_weights = OutputErrorOf(rows.Values(weights), w, inputs.slice(1, 60));
    CHECK(chosen.error == Approx(std::min(output.error, of_weights)).epsilon(1e-4));
    CHECK(chosen.range == (output.error < of_weights ? "output" : "mse"));
  }
}

TEST_CASE("wide widths, and layers whose inputs are not known, are fitted to their weights") {
  const torch::Tensor w = Weights({4, 30});
  QuantizerOptions options;
  options.range = "output";
  const WeightRows known(w, 0, options, {{}, SkewedInputs(1, 100, 30)}), unknown(w, 0, options);
  CHECK(known.Fit(5, "auto").range == "mse");
  CHECK(unknown.Fit(2, "auto").range == "mse");
  const WeightRows plain(w, 0, {});
  CHECK(torch::equal(unknown.Values(unknown.Fit(2, "auto")), plain.Values(plain.Fit(2, "auto"))));
}

TEST_CASE("a channel of denormals becomes zero at every width and range, and one just above them stays finite") {
  const torch::Tensor ordinary = Weights({4, 36});
  torch::manual_seed(4);
  for (const double size : {1e-40, 1e-38, 1e-37}) {
    torch::Tensor w = ordinary.clone();
    w[1] = torch::randn({36}) * size;
    w[1][0] = 0.0F;
    const torch::Tensor inputs = torch::randn({1, 200, 36});
    const torch::Tensor moments = inputs.transpose(1, 2).matmul(inputs) / 200.0;
    for (const std::string range : {"max", "mse", "posterior", "output", "auto"}) {
      QuantizerOptions options;
      options.range = range;
      const WeightRows rows(w, 0, options, {torch::ones_like(w), inputs});
      for (int bits = 0; bits <= 8; ++bits) {
        for (const std::string grid : {"auto", "zero", "half"}) {
          INFO(size << " " << range << " " << grid << " at " << bits << " bits");
          const QuantizedWeight fit = rows.Fit(bits, grid);
          CHECK(std::isfinite(fit.error));
          for (const torch::Tensor& values :
               {rows.Values(fit), rows.Compensated(fit, rows.OwnOutputs(moments), 0.2).Values()}) {
            CHECK(values.isfinite().all().item<bool>());
            CHECK(values[1].abs().max().item<float>() <= (size < 1e-39 ? 0.0F : 4e-37F));
          }
          CHECK(std::isfinite(rows.ErrorDots({fit}, torch::ones_like(w))[0]));
        }
      }
    }
  }
}

TEST_CASE("weights are one product of a scale and an integer code of the width, nearest or compensated") {
  torch::manual_seed(12);
  torch::Tensor w = torch::randn({6, 24});
  w[2].zero_();
  w[3].mul_(1e-42);  // denormal: no scale divides it
  const torch::Tensor x = torch::randn({100, 24});
  const torch::Tensor moments = x.t().matmul(x).div(100).unsqueeze(0);
  for (const char* granularity : {"channel", "tensor"}) {
    QuantizerOptions options;
    options.granularity = granularity;
    const WeightRows rows(w, 0, options), columns(w.t().contiguous(), 1, options);
    for (int bits = 0; bits <= 8; ++bits) {
      for (const char* grid : {"zero", "half"}) {
        INFO(granularity << " " << bits << " " << grid);
        const QuantizedWeight fit = rows.Fit(bits, grid);
        const QuantizedTensor nearest = rows.Quantized(fit);
        CHECK(torch::equal(columns.Quantized(columns.Fit(bits, grid)).Values().t(), nearest.Values()));
        for (const QuantizedTensor& q : {nearest, rows.Compensated(fit, rows.OwnOutputs(moments), 0.2)}) {
          CHECK(q.bits == bits);
          CHECK(q.codes.scalar_type() == torch::kInt8);
          const int half = bits == 0 ? 0 : 1 << (bits - 1);
          CHECK(q.codes.min().item<int>() >= -half);
          CHECK(q.codes.max().item<int>() <= std::max(half - 1, 0));
          if (bits > 0) CHECK(q.grid() == fit.grid);
          CHECK(torch::equal(q.Values(), q.scales.unsqueeze(1) * (q.codes.to(torch::kFloat32) + q.offset)));
          if (rows.rows() > 1) {
            CHECK(q.scales[2].item<float>() == 0.0F);
            CHECK(q.Values()[2].abs().max().item<float>() == 0.0F);
            CHECK(q.Values()[3].abs().max().item<float>() == 0.0F);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace bitplan
