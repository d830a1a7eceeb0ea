#include "bitplan/verify/evaluate.h"

#include <fmt/format.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/statistics.h"
#include "posterior/finite.h"

namespace bitplan {

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
    RequireSound(outputs.back(), module, data, torch::arange(begin, begin + count), normalizer);
    progress.Advance(count);
  }
  progress.End("");
  if (outputs.empty()) throw Error(ErrorKind::kData, fmt::format("{} holds no images", data.name));
  return torch::cat(outputs);
}

Evaluation Evaluate(const torch::jit::Module& module, const Dataset& data, const Normalizer& normalizer, int batch,
                    const std::string& label, ProgressSink& progress) {
  if (batch < 1) throw Error(ErrorKind::kUsage, fmt::format("verify.batch is {}; it must be >= 1", batch));
  if (!data.likelihood) {
    return EvaluateLogits(PredictLogits(module, data, normalizer, batch, label, progress), data.labels);
  }
  const torch::NoGradGuard no_grad;
  if (data.size() == 0) throw Error(ErrorKind::kData, fmt::format("{} holds no images", data.name));
  const auto measure = data.Task().MakeMeasure(data.labels);
  progress.Begin(label, data.size(), "images");
  for (std::int64_t begin = 0; begin < data.size(); begin += batch) {
    ThrowIfInterrupted();
    const std::int64_t count = std::min<std::int64_t>(batch, data.size() - begin);
    const torch::Tensor outputs = RunForward(module, normalizer.Apply(data.images.narrow(0, begin, count)));
    if (outputs.dim() == 0 || outputs.size(0) != count) {
      throw Error(ErrorKind::kData, fmt::format("the network does not return outputs [N, ...] for {}", data.name));
    }
    const torch::Tensor labels = data.labels.narrow(0, begin, count);
    if (const std::string wrong = data.Task().Misfit(outputs, labels); !wrong.empty()) {
      throw Error(ErrorKind::kData,
                  fmt::format("the network answers {} with {}; {}", data.name, c10::str(outputs.sizes()), wrong));
    }
    RequireSound(outputs, module, data, torch::arange(begin, begin + count), normalizer);
    measure->Add(outputs, labels);
    progress.Advance(count);
  }
  progress.End("");
  return measure->Finish();
}

Verification VerifyPaired(const torch::jit::Module& float_model, const torch::jit::Module& quantized,
                          const Dataset& data, const Normalizer& normalizer, const VerifyOptions& options,
                          std::uint64_t seed, ProgressSink& progress,
                          const std::optional<torch::jit::Module>& float_corrected) {
  const auto measure = [&](const torch::jit::Module& module, const std::string& label) {
    return Evaluate(module, data, normalizer, options.batch, label, progress);
  };
  const Evaluation before = measure(float_model, "verify float model");
  const Evaluation after = measure(quantized, "verify quantized model");
  const auto drop_from = [&](const Evaluation& reference) {
    RandomStream stream(seed, "verify/bootstrap");
    return data.likelihood ? CompareRatios(reference.gained, after.gained, after.possible, options.bootstrap, stream)
                           : ComparePaired(reference.correct, after.correct, options.bootstrap, stream);
  };
  Verification verified{.data = data.name,
                        .samples = data.size(),
                        .float_model = before.metrics,
                        .quantized = after.metrics,
                        .accuracy_drop = drop_from(before)};
  if (data.likelihood) verified.task = data.Task().name();
  if (float_corrected) {
    const Evaluation corrected = measure(*float_corrected, "verify float model, corrected");
    verified.float_corrected = FloatCorrected{corrected.metrics, drop_from(corrected)};
  }
  return verified;
}

}  // namespace bitplan
