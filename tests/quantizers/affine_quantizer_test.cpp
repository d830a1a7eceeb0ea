#include "bitplan/quantizers/affine_quantizer.h"

#include <cmath>
#include <limits>

#include "bitplan/core/error.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

ActivationSample SampleOf(const torch::Tensor& values) {
  ActivationSample sample;
  sample.Add(values);
  return sample;
}

double Error2(const AffineQuantizer& quantizer, const torch::Tensor& values) {
  return (quantizer.Apply(values) - values).square().mean().item<double>();
}

TEST_CASE("a quantizer of activations gives the levels of its formula, ties to the even code") {
  const AffineQuantizer quantizer{.bits = 2, .scale = 0.5F, .zero_point = 1};
  const torch::Tensor values = torch::tensor({-9.0F, -0.3F, -0.25F, 0.0F, 0.2F, 0.75F, 1.0F, 7.0F});
  const torch::Tensor expected = torch::tensor({-0.5F, -0.5F, 0.0F, 0.0F, 0.0F, 1.0F, 1.0F, 1.0F});
  CHECK(quantizer.Apply(values).equal(expected));
  CHECK(AffineQuantizer{}.Apply(values).equal(values));
}

TEST_CASE("zero is a level of every quantizer of activations, and the only offset of one without negative values") {
  torch::manual_seed(3);
  for (const char* range : {"max", "percentile", "mse"}) {
    for (const int bits : {2, 3, 4, 8, 16}) {
      INFO(range << " " << bits);
      const AffineQuantizer mixed = FitActivation(SampleOf(torch::randn(5000) + 0.7), bits, range);
      CHECK(mixed.Apply(torch::zeros(3)).equal(torch::zeros(3)));
      CHECK(mixed.zero_point > 0);
      CHECK(mixed.zero_point <= mixed.highest());
      CHECK(FitActivation(SampleOf(torch::rand(5000) + 1.0), bits, range).zero_point == 0);
      CHECK(FitActivation(SampleOf(-torch::rand(5000)), bits, range).zero_point == mixed.highest());
    }
  }
}

TEST_CASE("levels at odd halves stand around zero, where there are negative values") {
  torch::manual_seed(4);
  const AffineQuantizer quantizer{.bits = 2, .scale = 0.5F, .zero_point = 2, .half = true};
  const torch::Tensor values = torch::tensor({-9.0F, -0.6F, -0.4F, -0.1F, 0.1F, 0.3F, 0.7F, 7.0F});
  const torch::Tensor expected = torch::tensor({-0.75F, -0.75F, -0.25F, -0.25F, 0.25F, 0.25F, 0.75F, 0.75F});
  CHECK(quantizer.Apply(values).equal(expected));
  for (const int bits : {1, 2, 3, 8}) {
    INFO(bits);
    const torch::Tensor mixed = torch::randn(5000) + 0.2;
    for (const char* range : {"max", "percentile", "mse", "output"}) {
      const AffineQuantizer half = FitActivation(SampleOf(mixed), bits, range, "half");
      CHECK(half.half);
      CHECK(half.zero_point == 1 << (bits - 1));
      CHECK(torch::allclose(-half.Apply(-mixed), half.Apply(mixed), 1e-4, 1e-6));
      CHECK_FALSE(half.Apply(torch::zeros(1)).item<float>() == 0.0F);
    }
    const AffineQuantizer best = FitActivation(SampleOf(mixed), bits, "mse", "half");
    for (const float factor : {0.85F, 1.18F}) {
      AffineQuantizer other = best;
      other.scale *= factor;
      CHECK(Error2(best, mixed) < Error2(other, mixed));
    }
    CHECK_FALSE(FitActivation(SampleOf(mixed.relu()), bits, "mse", "half").half);
  }
}

TEST_CASE("the range max holds every value, mse has the least squared error") {
  torch::manual_seed(5);
  const torch::Tensor values = torch::relu(torch::randn(20000)).pow(2);
  const ActivationSample sample = SampleOf(values);
  for (const int bits : {2, 4, 8}) {
    const auto widest = FitActivation(sample, bits, "max"), best = FitActivation(sample, bits, "mse");
    INFO(bits);
    CHECK(static_cast<double>(widest.scale) * static_cast<double>(widest.highest()) ==
          Approx(values.max().item<double>()));
    CHECK((bits < 8 ? best.scale < widest.scale : best.scale <= widest.scale));
    for (const float factor : {0.85F, 1.18F}) {
      AffineQuantizer other = best;
      other.scale *= factor;
      CHECK(Error2(best, values) < Error2(other, values));
    }
    const auto most = FitActivation(sample, bits, "percentile");
    CHECK(most.scale < widest.scale);
  }
}

TEST_CASE("the range output has the least error of what layers make of the values") {
  torch::manual_seed(6);
  // One layer that reads large values only, one that reads small ones only: what each asks for.
  const torch::Tensor small = torch::rand({1, 400, 4}), large = torch::rand({1, 400, 4}) * 20.0;
  const torch::Tensor inputs = torch::cat({small, large}, 2);
  const auto only = [&](double of_small, double of_large) {
    ActivationSample sample = SampleOf(inputs);
    const torch::Tensor weights = torch::cat({torch::full({4, 3}, of_small), torch::full({4, 3}, of_large)});
    sample.readers[0] = {inputs, weights.unsqueeze(0)};
    return sample;
  };
  const auto error_of = [&](const AffineQuantizer& quantizer, const ActivationSample& sample) {
    const auto& reader = sample.readers.at(0);
    return (quantizer.Apply(reader.inputs) - reader.inputs).matmul(reader.weights).square().mean().item<double>();
  };
  const ActivationSample of_small = only(1.0, 0.0), of_large = only(0.0, 1.0);
  const auto by_values = FitActivation(of_small, 3, "mse"), by_small = FitActivation(of_small, 3, "output");
  const auto by_large = FitActivation(of_large, 3, "output");
  CHECK(by_small.scale < by_values.scale);
  CHECK(error_of(by_small, of_small) < error_of(by_values, of_small));
  CHECK(error_of(by_large, of_large) <= error_of(by_values, of_large));
  CHECK(by_small.scale < by_large.scale);
  CHECK(FitActivation(SampleOf(inputs), 3, "output").scale == by_values.scale);  // nobody reads it
}

TEST_CASE("the dots of rounding errors and a gradient are those of the rounded values") {
  torch::manual_seed(8);
  const torch::Tensor values = torch::randn({3, 5, 1001}).transpose(0, 2), gradient = torch::randn({1001, 5, 3});
  std::vector<AffineQuantizer> quantizers = {AffineQuantizer{}};
  for (const int bits : {2, 5, 8, 16}) quantizers.push_back(FitActivation(SampleOf(values), bits, "mse"));
  quantizers.push_back(FitActivation(SampleOf(values), 3, "mse", "half"));
  const auto dots = ErrorDots(values, gradient, quantizers);
  REQUIRE(dots.size() == quantizers.size());
  CHECK(dots[0] == 0.0);
  for (std::size_t k = 1; k < dots.size(); ++k) {
    const double expected = (gradient * (quantizers[k].Apply(values) - values)).sum(torch::kFloat64).item<double>();
    const double scale = gradient.norm().item<double>() * quantizers[k].scale;
    CHECK(std::abs(dots[k] - expected) < 1e-3 * scale + 1e-6);
  }
}

TEST_CASE("a sample of activations knows the ends of everything that it was given, and keeps a share of it") {
  ActivationSample sample;
  for (int part = 0; part < 4; ++part) sample.Add(torch::full({1000, 200}, 0.25F * static_cast<float>(part + 1)));
  torch::Tensor last = torch::zeros({10});
  last[3] = 9.0F;
  last[4] = -2.0F;
  sample.Add(last);
  sample.Add(torch::empty({0}));
  CHECK(sample.low == -2.0F);
  CHECK(sample.high == 9.0F);
  CHECK(sample.values.size(0) <= sample.most_values);
  CHECK(sample.values.size(0) > sample.most_values / 8);
  // Of every part alike, not mostly of the last ones.
  for (int part = 0; part < 4; ++part) {
    const auto kept = sample.values.eq(0.25F * static_cast<float>(part + 1)).sum().item<std::int64_t>();
    CHECK(kept > 0.2 * static_cast<double>(sample.values.size(0)));
  }
}

TEST_CASE("a sample of pictures holds all of their columns, whatever share of the values is kept") {
  ActivationSample sample;
  sample.most_values = 4096;
  const torch::Tensor columns = torch::arange(32, torch::kFloat32).expand({16, 16, 32, 32});
  for (int part = 0; part < 8; ++part) sample.Add(columns);
  for (int column = 0; column < 32; ++column) {
    const auto kept = sample.values.eq(static_cast<float>(column)).sum().item<std::int64_t>();
    INFO(column);
    CHECK(kept > 0.02 * static_cast<double>(sample.values.size(0)));
    CHECK(kept < 0.045 * static_cast<double>(sample.values.size(0)));
  }
}

TEST_CASE("activations of zeros keep a quantizer, those that are not finite are refused") {
  const AffineQuantizer zeros = FitActivation(SampleOf(torch::zeros(100)), 8, "mse");
  CHECK(zeros.Apply(torch::zeros(3)).equal(torch::zeros(3)));
  CHECK(FitActivation(ActivationSample(), 8, "max").bits == 8);
  CHECK(FitActivation(SampleOf(torch::full({10}, 1e-42F)), 8, "max").Apply(torch::zeros(1)).item<float>() == 0.0F);
  CHECK_THROWS_AS(FitActivation(SampleOf(torch::full({3}, std::numeric_limits<float>::infinity())), 8, "max"), Error);
  CHECK_THROWS_AS(FitActivation(SampleOf(torch::full({3}, std::numeric_limits<float>::quiet_NaN())), 8, "max"), Error);
}

}  // namespace
}  // namespace bitplan
