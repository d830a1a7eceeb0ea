#include "bitplan/models/layer_inputs.h"

#include <ATen/Parallel.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"

namespace bitplan {
namespace {

constexpr std::int64_t kBatch = 256;

// Output size of a convolution along its rows (0) or columns (1).
std::int64_t OutputSize(const Layer& layer, const torch::Tensor& input, std::size_t axis) {
  const LayerWindow& window = *layer.window;
  const std::int64_t reach = window.dilation[axis] * (layer.shape[2 + axis] - 1) + 1;
  return (input.size(2 + static_cast<std::int64_t>(axis)) + 2 * window.padding[axis] - reach) / window.stride[axis] + 1;
}

}  // namespace

bool HasKnownInputs(const Layer& layer) { return layer.uses == 1 && (layer.kind != "conv2d" || layer.window); }

std::int64_t InputPositions(const Layer& layer, const torch::Tensor& input) {
  if (layer.kind != "conv2d") return input.numel() / input.size(-1);
  return input.size(0) * OutputSize(layer, input, 0) * OutputSize(layer, input, 1);
}

torch::Tensor DrawPositions(std::int64_t positions, std::int64_t count, at::Generator& generator) {
  if (positions <= count) return torch::arange(positions);
  return std::get<0>(torch::randint(positions, {count}, generator, torch::kInt64).sort());
}

torch::Tensor GatherInputs(const Layer& layer, const torch::Tensor& input, const torch::Tensor& positions) {
  if (layer.kind != "conv2d") return input.reshape({-1, input.size(-1)}).index_select(0, positions).unsqueeze(0);
  const LayerWindow& window = *layer.window;
  const std::int64_t height = OutputSize(layer, input, 0), width = OutputSize(layer, input, 1);
  const torch::Tensor values = input.to(torch::kFloat32).contiguous(), chosen = positions.contiguous();
  const std::int64_t count = chosen.size(0), channels = values.size(1), rows = values.size(2), columns = values.size(3);
  const std::int64_t tall = layer.shape[2], wide = layer.shape[3], area = tall * wide;
  const std::int64_t per_group = channels / window.groups;
  torch::Tensor gathered = torch::empty({window.groups, count, per_group * area}, torch::kFloat32);
  const float* const from = values.data_ptr<float>();
  const std::int64_t* const position = chosen.data_ptr<std::int64_t>();
  float* const to = gathered.data_ptr<float>();
  std::vector<std::int64_t> steps;  // from the window's first value to each of the others
  for (std::int64_t i = 0; i < tall; ++i) {
    for (std::int64_t j = 0; j < wide; ++j) steps.push_back(i * window.dilation[0] * columns + j * window.dilation[1]);
  }
  const std::int64_t reach_down = window.dilation[0] * (tall - 1), reach_right = window.dilation[1] * (wide - 1);
  at::parallel_for(0, count, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t image = position[p] / (height * width);
      const std::int64_t top = position[p] / width % height * window.stride[0] - window.padding[0];
      const std::int64_t left = position[p] % width * window.stride[1] - window.padding[1];
      const bool inside = top >= 0 && left >= 0 && top + reach_down < rows && left + reach_right < columns;
      for (std::int64_t c = 0; c < channels; ++c) {
        const float* const plane = from + (image * channels + c) * rows * columns;
        float* out = to + ((c / per_group * count + p) * per_group + c % per_group) * area;
        if (inside) {
          const float* const first = plane + top * columns + left;
          for (std::int64_t k = 0; k < area; ++k) out[k] = first[steps[static_cast<std::size_t>(k)]];
          continue;
        }
        for (std::int64_t i = 0; i < tall; ++i) {
          const std::int64_t y = top + i * window.dilation[0];
          for (std::int64_t j = 0; j < wide; ++j, ++out) {
            const std::int64_t x = left + j * window.dilation[1];
            *out = y >= 0 && y < rows && x >= 0 && x < columns ? plane[y * columns + x] : 0.0F;
          }
        }
      }
    }
  });
  return gathered;
}

torch::Tensor GatherOutputs(const Layer& layer, const torch::Tensor& output, const torch::Tensor& positions) {
  if (layer.kind != "conv2d") return output.reshape({-1, output.size(-1)}).index_select(0, positions);
  const torch::Tensor values = output.to(torch::kFloat32).contiguous(), chosen = positions.contiguous();
  const std::int64_t channels = values.size(1), area = values.size(2) * values.size(3);
  torch::Tensor gathered = torch::empty({chosen.size(0), channels}, torch::kFloat32);
  const float* const from = values.data_ptr<float>();
  const std::int64_t* const position = chosen.data_ptr<std::int64_t>();
  float* const to = gathered.data_ptr<float>();
  at::parallel_for(0, chosen.size(0), 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      const float* const image = from + position[p] / area * channels * area + position[p] % area;
      for (std::int64_t c = 0; c < channels; ++c) to[p * channels + c] = image[c * area];
    }
  });
  return gathered;
}

std::vector<torch::Tensor> SampleLayerInputs(const Network& network, const torch::Tensor& images, std::int64_t count,
                                             std::uint64_t seed) {
  const torch::NoGradGuard no_grad;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  std::vector<std::vector<torch::Tensor>> parts(network.layers.size());
  torch::jit::Module module = network.module;
  std::int64_t share = 0;  // positions of this minibatch
  const auto keep = [&](std::size_t index, const torch::Tensor& input) {
    const Layer& layer = network.layers[index];
    if (!HasKnownInputs(layer) || input.numel() == 0) return;
    const torch::Tensor positions = DrawPositions(InputPositions(layer, input), share, generator);
    parts[index].push_back(GatherInputs(layer, input, positions));
  };
  {
    const Tap tap(network, module,
                  {.on_layer_input = keep, .on_layer_output = nullptr, .on_batch_norm_input = nullptr});
    for (std::int64_t begin = 0; begin < images.size(0); begin += kBatch) {
      ThrowIfInterrupted();
      const torch::Tensor batch = images.slice(0, begin, std::min(begin + kBatch, images.size(0)));
      share = (count * batch.size(0) + images.size(0) - 1) / images.size(0);
      (void)RunForward(module, batch);
    }
  }
  std::vector<torch::Tensor> inputs;
  for (const auto& of_layer : parts) inputs.push_back(of_layer.empty() ? torch::Tensor() : torch::cat(of_layer, 1));
  return inputs;
}

}  // namespace bitplan
