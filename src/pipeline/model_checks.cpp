#include "pipeline/model_checks.h"

#include <fmt/format.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/models/answers.h"

namespace bitplan::pipeline {

namespace {

// A network of integers looks them up in tables, which have an end. Names the first image that it does not take.
void CheckTakesAll(const Network& network, const Dataset& data, const Normalizer& normalizer) {
  constexpr std::int64_t kBatch = 256;
  const auto run = [&](std::int64_t begin, std::int64_t count) {
    (void)RunForward(network.module, normalizer.Apply(data.images.narrow(0, begin, count)));
  };
  for (std::int64_t begin = 0; begin < data.size(); begin += kBatch) {
    const std::int64_t count = std::min(kBatch, data.size() - begin);
    try {
      run(begin, count);
      continue;
    } catch (const Error&) {
    }
    for (std::int64_t row = begin; row < begin + count; ++row) {
      try {
        run(row, 1);
      } catch (const Error& error) {
        throw Error(error.kind(),
                    fmt::format("{} is not what model {} takes: {}", data.ImageName(row), network.name, error.what()));
      }
    }
  }
}

}  // namespace

torch::Tensor DescribingImages(const Dataset& train, const Normalizer& normalizer) {
  return normalizer.Apply(train.images.narrow(0, 0, std::min(kDescribingImages, train.size())));
}

namespace {

// Of another task than classification.
void CheckTask(const Network& network, const Dataset& train, const std::vector<const Dataset*>& others,
               const torch::Tensor& answers) {
  const auto check = [&](const Dataset& data) {
    if (data.size() == 0) return;
    const std::string wrong = data.Task().Misfit(answers, data.labels);
    if (wrong.empty()) return;
    throw Error(
        ErrorKind::kData,
        fmt::format(
            "model {} answers {} {}s with {}; for the {} of {}{} {}", network.name, answers.size(0), data.RowWord(),
            c10::str(answers.sizes()), data.Task().name(), data.name,
            data.names && !data.names->label_file.empty() ? fmt::format(" ({})", data.names->label_file.string()) : "",
            wrong));
  };
  check(train);
  for (const Dataset* data : others) check(*data);
}

}  // namespace

ModelFit CheckModelFits(const Network& network, const Dataset& train, const std::vector<const Dataset*>& others,
                        const Normalizer& normalizer, bool answers_may_vary) {
  const torch::NoGradGuard no_grad;
  constexpr std::int64_t kProbed = 16;
  const auto images = normalizer.Apply(train.images.narrow(0, 0, std::min(kProbed, train.size())));
  const auto alone = RunForward(network.module, images.narrow(0, 0, 1));
  const bool classes = !train.likelihood;
  if (classes && (alone.dim() != 2 || alone.size(0) != 1 || alone.size(1) == 0)) {
    throw Error(ErrorKind::kData, fmt::format("model {} answers one image with {}; logits [1, classes] are needed, or "
                                              "data.task, which is {} here",
                                              network.name, c10::str(alone.sizes()), train.Task().name()));
  }
  if (classes && alone.size(1) == 1) {
    throw Error(ErrorKind::kData,
                fmt::format("model {} has one output; logits of two classes or more are needed: of one logit y of two "
                            "classes make torch.cat([torch.zeros_like(y), y], 1), or set data.task: multi-label",
                            network.name));
  }
  if (classes) {
    CheckLabelsWithin(train, alone.size(1), "model " + network.name);
    for (const Dataset* data : others) {
      if (data->size() > 0) CheckLabelsWithin(*data, alone.size(1), "model " + network.name);
    }
  }
  const auto answers = RunForward(network.module, images);
  RestoreChangedByForward(network, network.module);
  if ((classes && answers.dim() != 2) || answers.dim() == 0 || answers.size(0) != images.size(0)) {
    throw Error(ErrorKind::kData,
                fmt::format("model {} answers {} images with {}: one row of logits for every image is needed",
                            network.name, images.size(0), c10::str(answers.sizes())));
  }
  if (!answers.is_floating_point()) {
    throw Error(ErrorKind::kData,
                fmt::format("model {} answers {} numbers, not logits: save it without its last argmax or rounding",
                            network.name, c10::toString(answers.scalar_type())));
  }
  if (!classes) CheckTask(network, train, others, answers);
  const auto rows_sum_to_one = classes && (answers.sum(1) - 1.0).abs().max().item<float>() < 1e-4F;
  if ((train.classes > 1 || train.unlabelled) && rows_sum_to_one && answers.min().item<float>() >= 0.0F) {
    throw Error(
        ErrorKind::kData,
        fmt::format("model {} answers probabilities, not logits: save it without its last softmax", network.name));
  }
  if (network.input_type == torch::kInt64) {
    CheckTakesAll(network, train, normalizer);
    for (const Dataset* data : others) CheckTakesAll(network, *data, normalizer);
  }
  auto reason = images.size(0) > 1 ? WhyAnswersVary(network, images) : std::string();
  if (!reason.empty() && !answers_may_vary) {
    throw Error(ErrorKind::kData, reason + "; or accept it with model.answers_may_vary: true");
  }
  return {classes ? alone.size(1) : 0, std::move(reason)};
}

}  // namespace bitplan::pipeline
