#include "datagen/digit_autoencoder.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <torch/optim/adam.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"

namespace bitplan {
namespace {

constexpr std::int64_t kBlock = 1000;  // images encoded or decoded at once

torch::Tensor Forward(const std::vector<torch::Tensor>& layers, torch::Tensor x) {
  for (std::size_t i = 0; i < layers.size(); i += 2) {
    x = torch::linear(x, layers[i], layers[i + 1]);
    if (i + 2 < layers.size()) x = torch::relu(x);
  }
  return x;
}

torch::Tensor Pixels(const torch::Tensor& images) { return images.flatten(1).to(torch::kFloat32).div_(255); }

template <typename Function>
torch::Tensor InBlocks(const torch::Tensor& rows, const Function& function) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> parts;
  for (const torch::Tensor& block : rows.split(kBlock)) {
    ThrowIfInterrupted();
    parts.push_back(function(block));
  }
  return torch::cat(parts);
}

}  // namespace

DigitAutoencoder::Layers DigitAutoencoder::MakeLayers(const std::vector<std::int64_t>& widths, std::uint64_t seed,
                                                      const char* name) {
  RandomStream stream(seed, name);
  Layers layers;
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    torch::Tensor weight = torch::empty({widths[l + 1], widths[l]}), bias = torch::zeros({widths[l + 1]});
    const double deviation = std::sqrt((l + 2 < widths.size() ? 2.0 : 1.0) / static_cast<double>(widths[l]));
    auto* values = weight.data_ptr<float>();
    for (std::int64_t i = 0; i < weight.numel(); ++i) values[i] = static_cast<float>(deviation * stream.Normal());
    layers.push_back(weight);
    layers.push_back(bias);
  }
  return layers;
}

DigitAutoencoder::DigitAutoencoder(std::int64_t pixels, const AmbiguousDigitsOptions& options, std::uint64_t seed)
    : options_(options), seed_(seed) {
  std::vector<std::int64_t> inward = {pixels}, outward = {options.code};
  inward.insert(inward.end(), options.hidden.begin(), options.hidden.end());
  inward.push_back(2 * options.code);
  outward.insert(outward.end(), options.hidden.rbegin(), options.hidden.rend());
  outward.push_back(pixels);
  encoder_ = MakeLayers(inward, seed, "ambiguous-digits/autoencoder/encoder");
  decoder_ = MakeLayers(outward, seed, "ambiguous-digits/autoencoder/decoder");
}

// Mean over the images of -log p(pixels | code) + KL(code || prior).
torch::Tensor DigitAutoencoder::Loss(const torch::Tensor& pixels, const torch::Tensor& noise) const {
  const auto code = Forward(encoder_, pixels).chunk(2, 1);
  const torch::Tensor &mean = code[0], &log_variance = code[1];
  const torch::Tensor logits = Forward(decoder_, mean + torch::exp(0.5 * log_variance) * noise);
  const torch::Tensor divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum();
  return (torch::binary_cross_entropy_with_logits(logits, pixels, {}, {}, at::Reduction::Sum) + divergence) /
         pixels.size(0);
}

double DigitAutoencoder::Train(const torch::Tensor& images, ProgressSink& progress) {
  Layers parameters = encoder_;
  parameters.insert(parameters.end(), decoder_.begin(), decoder_.end());
  for (const torch::Tensor& parameter : parameters) parameter.set_requires_grad(true);
  torch::optim::Adam optimizer(parameters, torch::optim::AdamOptions(options_.autoencoder_learning_rate));
  auto generator = at::detail::createCPUGenerator(StreamSeed(seed_, "ambiguous-digits/autoencoder/noise"));
  const std::int64_t count = images.size(0), batch = options_.autoencoder_batch;
  double mean_loss = 0.0;
  for (int epoch = 1; epoch <= options_.autoencoder_epochs; ++epoch) {
    progress.Begin(fmt::format("autoencoder epoch {}/{}", epoch, options_.autoencoder_epochs), count, "images");
    RandomStream stream(seed_, fmt::format("ambiguous-digits/autoencoder/epoch/{}", epoch));
    const torch::Tensor order = torch::tensor(stream.Permutation(count));
    double sum = 0.0;
    for (const torch::Tensor& rows : order.split(batch)) {
      ThrowIfInterrupted();
      optimizer.zero_grad();
      const torch::Tensor noise = torch::randn({rows.size(0), options_.code}, generator);
      const torch::Tensor loss = Loss(Pixels(images.index_select(0, rows)), noise);
      loss.backward();
      optimizer.step();
      sum += loss.item<double>() * static_cast<double>(rows.size(0));
      progress.Advance(rows.size(0));
    }
    mean_loss = sum / static_cast<double>(count);
    if (!std::isfinite(mean_loss)) throw Error(ErrorKind::kData, "the autoencoder diverged; lower its learning rate");
    progress.End(fmt::format("loss {:.2f}", mean_loss));
  }
  for (const torch::Tensor& parameter : parameters) parameter.set_requires_grad(false);
  return mean_loss;
}

torch::Tensor DigitAutoencoder::Encode(const torch::Tensor& images) const {
  return InBlocks(images, [&](const torch::Tensor& block) {
    return Forward(encoder_, Pixels(block)).narrow(1, 0, options_.code).clone();
  });
}

torch::Tensor DigitAutoencoder::Decode(const torch::Tensor& codes) const {
  return InBlocks(codes, [&](const torch::Tensor& block) { return Forward(decoder_, block).sigmoid_(); });
}

}  // namespace bitplan
