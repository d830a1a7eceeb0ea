#include "bitplan/verify/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/statistics.h"
#include "posterior/finite.h"

namespace bitplan {
namespace {

constexpr int kCalibrationBins = 15;

// Bin i holds the confidences in (i / 15, (i + 1) / 15].
int CalibrationBin(double confidence) {
  return std::clamp(static_cast<int>(std::ceil(confidence * kCalibrationBins)) - 1, 0, kCalibrationBins - 1);
}

void CheckLabels(const torch::Tensor& logits, const torch::Tensor& labels) {
  if (logits.dim() != 2 || labels.dim() != 1 || logits.size(0) != labels.size(0) || labels.size(0) == 0) {
    throw Error(ErrorKind::kData, fmt::format("evaluation needs outputs [N, classes] and labels [N], N > 0; it got {} "
                                              "and {}",
                                              Counted(logits.dim() > 0 ? logits.size(0) : 0, "output row"),
                                              Counted(labels.numel(), "label")));
  }
  const std::int64_t low = labels.min().item<std::int64_t>(), high = labels.max().item<std::int64_t>();
  if (low < 0 || high >= logits.size(1)) {
    throw Error(ErrorKind::kData,
                fmt::format("the data has the label {} at position {}, the network has {}: labels must be in "
                            "0..{}",
                            low < 0 ? low : high, (low < 0 ? labels.argmin() : labels.argmax()).item<std::int64_t>(),
                            Counted(logits.size(1), "output"), logits.size(1) - 1));
  }
}

}  // namespace

torch::Tensor PredictLogits(const torch::jit::Module& module, const Dataset& data, const Normalizer& normalizer,
                            int batch, const std::string& label, ProgressSink& progress) {
  if (batch < 1) throw Error(ErrorKind::kUsage, fmt::format("verify.batch is {}; it must be >= 1", batch));
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> outputs;
  progress.Begin(label, data.size(), "images");
  for (std::int64_t begin = 0; begin < data.size(); begin += batch) {
    ThrowIfInterrupted();
    const std::int64_t count = std::min<std::int64_t>(batch, data.size() - begin);
    const torch::Tensor result = RunForward(module, normalizer.Apply(data.images.narrow(0, begin, count)));
    if (result.dim() != 2 || result.size(0) != count) {
      throw Error(ErrorKind::kData, fmt::format("the network does not return logits [N, classes] for {}", data.name));
    }
    outputs.push_back(result.to(torch::kFloat32));
    RequireProbabilities(outputs.back(), module, data, torch::arange(begin, begin + count), normalizer);
    progress.Advance(count);
  }
  progress.End("");
  if (outputs.empty()) throw Error(ErrorKind::kData, fmt::format("{} holds no images", data.name));
  return torch::cat(outputs);
}

Evaluation EvaluateLogits(const torch::Tensor& logits, const torch::Tensor& labels) {
  CheckLabels(logits, labels);
  const torch::Tensor log_p = torch::log_softmax(logits.to(torch::kCPU, torch::kFloat64), 1).contiguous();
  const torch::Tensor truth = labels.to(torch::kCPU, torch::kInt64).contiguous();
  const std::int64_t samples = log_p.size(0), classes = log_p.size(1);
  std::array<double, kCalibrationBins> confidence{}, hits{};
  Evaluation result;
  result.correct.reserve(static_cast<std::size_t>(samples));
  for (std::int64_t i = 0; i < samples; ++i) {
    const double* row = log_p.data_ptr<double>() + i * classes;
    const std::int64_t label = truth.data_ptr<std::int64_t>()[i];
    if (std::isnan(row[label])) {
      throw Error(ErrorKind::kData, fmt::format("the network's output for image {} is not finite", i));
    }
    if (std::isinf(row[label])) {
      throw Error(ErrorKind::kData, fmt::format("image {} has the label {}, a class that the network rules out: its "
                                                "output for it is -inf",
                                                i, label));
    }
    const std::int64_t answer = std::max_element(row, row + classes) - row;
    double brier = 0.0;
    for (std::int64_t c = 0; c < classes; ++c) {
      const double error = std::exp(row[c]) - (c == label ? 1.0 : 0.0);
      brier += error * error;
    }
    const double top = std::exp(row[answer]);
    confidence[CalibrationBin(top)] += top;
    hits[CalibrationBin(top)] += answer == label ? 1.0 : 0.0;
    result.metrics.accuracy += answer == label ? 1.0 : 0.0;
    result.metrics.nll -= row[label];
    result.metrics.brier += brier;
    result.correct.push_back(answer == label ? 1 : 0);
    result.nll.push_back(static_cast<float>(-row[label]));
  }
  for (int bin = 0; bin < kCalibrationBins; ++bin) result.metrics.ece += std::abs(hits[bin] - confidence[bin]);
  for (double* sum : {&result.metrics.accuracy, &result.metrics.nll, &result.metrics.brier, &result.metrics.ece}) {
    *sum /= static_cast<double>(samples);
  }
  return result;
}

Verification VerifyPaired(const torch::jit::Module& float_model, const torch::jit::Module& quantized,
                          const Dataset& data, const Normalizer& normalizer, const VerifyOptions& options,
                          std::uint64_t seed, ProgressSink& progress,
                          const std::optional<torch::jit::Module>& float_corrected) {
  const auto measure = [&](const torch::jit::Module& module, const std::string& label) {
    return EvaluateLogits(PredictLogits(module, data, normalizer, options.batch, label, progress), data.labels);
  };
  const Evaluation before = measure(float_model, "verify float model");
  const Evaluation after = measure(quantized, "verify quantized model");
  const auto drop_from = [&](const Evaluation& reference) {
    return ComparePaired(reference.correct, after.correct, options.bootstrap, RandomStream(seed, "verify/bootstrap"));
  };
  Verification verified{.data = data.name,
                        .samples = data.size(),
                        .float_model = before.metrics,
                        .quantized = after.metrics,
                        .accuracy_drop = drop_from(before)};
  if (float_corrected) {
    const Evaluation corrected = measure(*float_corrected, "verify float model, corrected");
    verified.float_corrected = FloatCorrected{corrected.metrics, drop_from(corrected)};
  }
  return verified;
}

}  // namespace bitplan
