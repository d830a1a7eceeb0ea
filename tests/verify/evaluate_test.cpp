#include "bitplan/verify/evaluate.h"

#include <cmath>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/statistics.h"
#include "support/catch_torch.h"

using namespace bitplan;

namespace {

// Four samples of three classes; the tensor holds probabilities, logits are their logarithms plus any constant.
torch::Tensor Probabilities() {
  return torch::tensor({{0.7, 0.2, 0.1}, {0.1, 0.6, 0.3}, {0.4, 0.5, 0.1}, {0.05, 0.05, 0.9}}, torch::kFloat64);
}

torch::Tensor Labels() { return torch::tensor({0, 1, 0, 1}, torch::kInt64); }

// Logits are the first three pixels of an image: an image says what the network will answer.
torch::jit::Module PixelNetwork(const std::string& expression = "x.flatten(1)[:, 0:3]") {
  torch::jit::Module module("pixels");
  module.define("def forward(self, x):\n    return " + expression + "\n");
  return module;
}

Dataset PixelData(std::int64_t samples) {
  torch::manual_seed(3);
  return {.name = "pixels/test",
          .images = torch::randn({samples, 1, 2, 2}),
          .labels = torch::randint(0, 3, {samples}, torch::kInt64),
          .classes = 3};
}

class Recorder : public ProgressSink {
 public:
  void Begin(const std::string& stage, std::int64_t total, const std::string& unit) override {
    stages.push_back(stage + " " + std::to_string(total) + " " + unit);
  }
  void Advance(std::int64_t steps) override { advanced += steps; }
  void End(const std::string&) override { ++ended; }
  void Info(const std::string&) override {}
  void Warn(const std::string&) override {}
  std::vector<std::string> stages;
  std::int64_t advanced = 0;
  int ended = 0;
};

}  // namespace

TEST_CASE("accuracy, NLL, Brier and ECE equal the values worked out by hand") {
  const Evaluation result = EvaluateLogits(Probabilities().log() + 5.0, Labels());
  CHECK(result.correct == std::vector<std::uint8_t>{1, 1, 0, 0});
  CHECK(result.metrics.accuracy == Approx(0.5));
  CHECK(result.metrics.nll == Approx(-(std::log(0.7) + std::log(0.6) + std::log(0.4) + std::log(0.05)) / 4));
  CHECK(result.metrics.brier == Approx((0.14 + 0.26 + 0.62 + 1.715) / 4));
  // Confidences 0.7, 0.6, 0.5, 0.9 fall into four bins of width 1/15: |1 - 0.7| + |1 - 0.6| + 0.5 + 0.9.
  CHECK(result.metrics.ece == Approx((0.3 + 0.4 + 0.5 + 0.9) / 4));
}

TEST_CASE("samples of one calibration bin are averaged before they are compared") {
  const torch::Tensor p = torch::tensor({{0.75, 0.25}, {0.76, 0.24}, {0.77, 0.23}}, torch::kFloat64);
  const Evaluation result = EvaluateLogits(p.log(), torch::tensor({0, 0, 1}, torch::kInt64));
  CHECK(result.metrics.ece == Approx(std::abs(2.0 / 3 - 0.76)));
}

TEST_CASE("huge logits do not overflow") {
  const Evaluation result = EvaluateLogits(torch::tensor({{1e4f, -1e4f}}), torch::tensor({1}, torch::kInt64));
  CHECK(result.metrics.nll == Approx(2e4));
  CHECK(result.metrics.accuracy == 0.0);
}

TEST_CASE("labels beyond the network's classes and outputs that are not finite are data errors") {
  CHECK_THROWS_WITH(EvaluateLogits(Probabilities(), torch::tensor({0, 1, 3, 1}, torch::kInt64)),
                    ContainsSubstring("label 3") && ContainsSubstring("3 outputs"));
  CHECK_THROWS_WITH(EvaluateLogits(Probabilities(), torch::tensor({0, -1, 2, 1}, torch::kInt64)),
                    ContainsSubstring("label -1"));
  CHECK_THROWS_AS(EvaluateLogits(Probabilities(), torch::tensor({0, 1}, torch::kInt64)), Error);
  const torch::Tensor bad = torch::full({1, 3}, std::nan(""));
  CHECK_THROWS_WITH(EvaluateLogits(bad, torch::tensor({0}, torch::kInt64)), ContainsSubstring("image 0"));
}

TEST_CASE("every image is predicted once and in order, whatever the batch") {
  const Dataset data = PixelData(10);
  DataOptions options;
  options.normalize_mean = {0.5};
  options.normalize_std = {2.0};
  const Normalizer normalizer(options);
  const torch::Tensor expected = ((data.images - 0.5) / 2.0).flatten(1).narrow(1, 0, 3);
  for (const int batch : {1, 3, 10, 64}) {
    Recorder recorder;
    const torch::Tensor logits = PredictLogits(PixelNetwork(), data, normalizer, batch, "verify", recorder);
    CHECK(torch::allclose(logits, expected));
    CHECK(recorder.stages == std::vector<std::string>{"verify 10 images"});
    CHECK(recorder.advanced == 10);
    CHECK(recorder.ended == 1);
  }
}

TEST_CASE("a network that returns no logits is a data error") {
  const Normalizer normalizer{DataOptions{}};
  CHECK_THROWS_WITH(PredictLogits(PixelNetwork("x"), PixelData(2), normalizer, 2, "verify", SilentSink()),
                    ContainsSubstring("pixels/test"));
}

TEST_CASE("a requested stop ends the prediction") {
  RequestInterrupt();
  CHECK_THROWS_AS(PredictLogits(PixelNetwork(), PixelData(4), Normalizer{DataOptions{}}, 2, "verify", SilentSink()),
                  Error);
  ClearInterrupt();
}

TEST_CASE("verification pairs both networks on the same samples and repeats with the same seed") {
  const Dataset data = PixelData(200);
  const Normalizer normalizer{DataOptions{}};
  const torch::jit::Module other = PixelNetwork("x.flatten(1)[:, 1:4]");
  const auto verify = [&](const torch::jit::Module& quantized) {
    return VerifyPaired(PixelNetwork(), quantized, data, normalizer, {.batch = 64, .bootstrap = 500}, 7, SilentSink());
  };
  const Verification result = verify(other);
  CHECK(result.data == "pixels/test");
  CHECK(result.samples == 200);
  const torch::Tensor pixels = data.images.flatten(1);
  const Evaluation before = EvaluateLogits(pixels.narrow(1, 0, 3), data.labels);
  const Evaluation after = EvaluateLogits(pixels.narrow(1, 1, 3), data.labels);
  CHECK(result.float_model.nll == Approx(before.metrics.nll));
  CHECK(result.quantized.nll == Approx(after.metrics.nll));
  CHECK(result.accuracy_drop.drop == Approx(before.metrics.accuracy - after.metrics.accuracy));
  CHECK(result.accuracy_drop.ci_low < result.accuracy_drop.ci_high);
  CHECK(verify(other).accuracy_drop.ci_low == result.accuracy_drop.ci_low);

  const Verification same = verify(PixelNetwork());
  CHECK(same.accuracy_drop.ci_low == 0.0);
  CHECK(same.accuracy_drop.ci_high == 0.0);
  CHECK(same.accuracy_drop.mcnemar_p == 1.0);
}

TEST_CASE("an image whose output is not finite is named, a class of -inf is not") {
  Dataset data = PixelData(10);
  data.images = data.images.clone();
  data.images.flatten(1).index_put_({torch::indexing::Slice(), 0}, -std::numeric_limits<float>::infinity());
  const Normalizer normalizer{DataOptions{}};
  const torch::Tensor logits = PredictLogits(PixelNetwork(), data, normalizer, 4, "verify", SilentSink());
  const torch::Tensor labels = torch::ones({10}, torch::kInt64);
  const Metrics masked = EvaluateLogits(logits, labels).metrics;
  const Metrics without = EvaluateLogits(logits.slice(1, 1), labels - 1).metrics;
  CHECK(masked.nll == Approx(without.nll));
  CHECK(masked.brier == Approx(without.brier));
  CHECK(masked.ece == Approx(without.ece).margin(1e-12));
  CHECK_THROWS_WITH(EvaluateLogits(logits, labels - 1), ContainsSubstring("rules out"));

  data.images.flatten(1)[7][1] = std::nan("");
  CHECK_THROWS_WITH(PredictLogits(PixelNetwork(), data, normalizer, 4, "verify", SilentSink()),
                    ContainsSubstring("image 7 of pixels/test"));
}
