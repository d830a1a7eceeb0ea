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

torch::Tensor OutputsOf(const torch::jit::Module& module, const Dataset& data, const torch::Tensor& rows,
                        const Normalizer& normalizer) {
  const torch::NoGradGuard no_grad;
  return RunForward(module, normalizer.Apply(data.images.index_select(0, rows)));
}

}  // namespace

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

void RequireSound(const torch::Tensor& outputs, const torch::jit::Module& module, const Dataset& data,
                  const torch::Tensor& rows, const Normalizer& normalizer) {
  const auto are_sound = [&](const torch::Tensor& some) { return data.Task().AreSound(some).all().item<bool>(); };
  if (are_sound(outputs)) return;
  RefuseImage(data, rows, "the network's output",
              [&](const torch::Tensor& row) { return are_sound(OutputsOf(module, data, row, normalizer)); });
}

void RefuseLoss(const torch::jit::Module& module, const Dataset& data, const torch::Tensor& rows,
                const Normalizer& normalizer) {
  const auto is_sound = [&](const torch::Tensor& row) {
    return AreFinite({data.Task().Loss(OutputsOf(module, data, row, normalizer), data.labels.index_select(0, row))});
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
      logits = OutputsOf(network.module, data, some, normalizer);
    }
    return where.empty() && data.Task().AreSound(logits).all().item<bool>();
  };
  for (const torch::Tensor& some : rows.split(kActivationBatch)) {
    ThrowIfInterrupted();
    if (is_sound(some)) continue;
    RefuseImage(data, some, where.empty() ? "the network's output" : "the input of layer " + where, is_sound);
  }
}

}  // namespace bitplan
