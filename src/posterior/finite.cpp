#include "posterior/finite.h"

#include <fmt/format.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"

namespace bitplan {
namespace {

constexpr std::int64_t kActivationBatch = 128;

torch::Tensor LogitsOf(const torch::jit::Module& module, const Dataset& data, const torch::Tensor& rows,
                       const Normalizer& normalizer) {
  const torch::NoGradGuard no_grad;
  return RunForward(module, normalizer.Apply(data.images.index_select(0, rows)));
}

}  // namespace

torch::Tensor HaveProbabilities(const torch::Tensor& logits) {
  const torch::Tensor values = logits.detach();
  // A maximum is NaN where a value is, +inf where one is, and -inf where all are.
  return values.amax(1).isfinite();
}

torch::Tensor RowDivergences(const torch::Tensor& log_p, const torch::Tensor& log_q) {
  const torch::Tensor p = log_p.exp(), difference = log_p - log_q;
  // Chosen before it is multiplied, so that gradients stay finite too.
  return (p * torch::where(p.gt(0.0), difference, torch::zeros_like(difference))).sum(1);
}

double MeanNotNegative(const torch::Tensor& values) {
  const double mean = values.mean(torch::kFloat64).item<double>();
  return mean < 0.0 ? 0.0 : mean;
}

bool AreFinite(const std::vector<torch::Tensor>& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const torch::Tensor& tensor) {
    return !tensor.defined() || tensor.detach().isfinite().all().item<bool>();
  });
}

Error NotFinite(const std::string& what, const std::string& image) {
  return {ErrorKind::kData,
          fmt::format("{} of {} is not finite; leave the image out, or change the network so that it takes it", what,
                      image)};
}

void RefuseImage(const Dataset& data, const torch::Tensor& rows, const std::string& what,
                 const std::function<bool(const torch::Tensor& row)>& is_sound) {
  for (std::int64_t i = 0; i < rows.size(0); ++i) {
    ThrowIfInterrupted();
    const torch::Tensor row = rows.slice(0, i, i + 1);
    if (is_sound(row)) continue;
    throw NotFinite(what, data.ImageName(row.item<std::int64_t>()));
  }
  throw Error(ErrorKind::kData,
              fmt::format("{} of {} and the {} that ran with it is not finite, though of each alone it is; give "
                          "the network a forward that takes images one by one",
                          what, data.ImageName(rows[0].item<std::int64_t>()), Counted(rows.size(0) - 1, "image")));
}

void RequireProbabilities(const torch::Tensor& logits, const torch::jit::Module& module, const Dataset& data,
                          const torch::Tensor& rows, const Normalizer& normalizer) {
  if (HaveProbabilities(logits).all().item<bool>()) return;
  RefuseImage(data, rows, "the network's output", [&](const torch::Tensor& row) {
    return HaveProbabilities(LogitsOf(module, data, row, normalizer)).all().item<bool>();
  });
}

void RefuseLoss(const torch::jit::Module& module, const Dataset& data, const torch::Tensor& rows,
                const Normalizer& normalizer) {
  const auto is_sound = [&](const torch::Tensor& row) {
    const torch::Tensor log_p = LogitsOf(module, data, row, normalizer).log_softmax(1);
    return AreFinite({torch::nll_loss(log_p, data.labels.index_select(0, row))});
  };
  std::vector<torch::Tensor> bad;
  for (const torch::Tensor& row : rows.split(1)) {
    if (!is_sound(row)) bad.push_back(row);
  }
  if (bad.empty()) return;
  const auto failed = static_cast<std::int64_t>(bad.size());
  const bool pixels = AreFinite({normalizer.Apply(data.images.index_select(0, bad.front()))});
  if (failed < rows.size(0) || failed == 1 || !pixels) RefuseImage(data, bad.front(), "the loss", is_sound);
}

void RequireFiniteActivations(const Network& network, const Dataset& data, const torch::Tensor& rows,
                              const Normalizer& normalizer) {
  std::string where;  // the first layer whose input is not finite
  const auto is_sound = [&](const torch::Tensor& some) {
    where.clear();
    const auto look = [&](std::size_t layer, const torch::Tensor& input) {
      if (where.empty() && !AreFinite({input})) where = network.layers[layer].name;
    };
    torch::Tensor logits;
    {
      const Tap tap(network, network.module,
                    {.on_layer_input = look, .on_layer_output = nullptr, .on_batch_norm_input = nullptr});
      logits = LogitsOf(network.module, data, some, normalizer);
    }
    return where.empty() && HaveProbabilities(logits).all().item<bool>();
  };
  for (const torch::Tensor& some : rows.split(kActivationBatch)) {
    ThrowIfInterrupted();
    if (is_sound(some)) continue;
    RefuseImage(data, some, where.empty() ? "the network's output" : "the input of layer " + where, is_sound);
  }
}

}  // namespace bitplan
