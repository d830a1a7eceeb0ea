#include "bitplan/models/layer_inputs.h"

#include <ATen/Parallel.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <array>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"

namespace bitplan {
namespace {

constexpr std::int64_t kBatch = 256;

constexpr std::size_t kAxes = 3;  // positions of one and two dimensions get leading ones of size 1

using Extents = std::array<std::int64_t, kAxes>;

// A convolution over an input of known size, along three axes.
struct Geometry {
  Extents input, output, window;
  Extents stride, padding, dilation;
  bool transposed;

  // Where output `at` along `axis` finds the input of the window's place `k`; -1 where there is none.
  [[nodiscard]] std::int64_t Source(std::size_t axis, std::int64_t at, std::int64_t k) const {
    std::int64_t place = at * stride[axis] - padding[axis] + k * dilation[axis];
    if (transposed) {  // output = input * stride - padding + k * dilation
      place = at + padding[axis] - k * dilation[axis];
      if (place < 0 || place % stride[axis] != 0) return -1;
      place /= stride[axis];
    }
    return place >= 0 && place < input[axis] ? place : -1;
  }
};

std::int64_t Volume(const Extents& extents) { return extents[0] * extents[1] * extents[2]; }

// [channels, positions...] or [N, channels, positions...] -> the last `dims` sizes.
Extents PositionSizes(const torch::Tensor& values, std::size_t dims) {
  Extents sizes{1, 1, 1};
  for (std::size_t d = 0; d < dims; ++d) {
    sizes[kAxes - dims + d] =
        values.size(values.dim() - static_cast<std::int64_t>(dims) + static_cast<std::int64_t>(d));
  }
  return sizes;
}

Geometry GeometryOf(const Layer& layer, const torch::Tensor& input) {
  const LayerWindow& window = *layer.window;
  const std::size_t dims = layer.position_dims(), skipped = kAxes - dims;
  Geometry g{PositionSizes(input, dims), {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}, window.transposed};
  for (std::size_t d = 0; d < dims; ++d) {
    const std::size_t axis = skipped + d;
    g.window[axis] = layer.shape[2 + d];
    g.stride[axis] = window.stride[d];
    g.padding[axis] = window.padding[d];
    g.dilation[axis] = window.dilation[d];
    const std::int64_t reach = g.dilation[axis] * (g.window[axis] - 1) + 1;
    g.output[axis] = window.transposed
                         ? (g.input[axis] - 1) * g.stride[axis] - 2 * g.padding[axis] + reach + window.output_padding[d]
                         : (g.input[axis] + 2 * g.padding[axis] - reach) / g.stride[axis] + 1;
  }
  return g;
}

// Gathers what single output positions of one channel plane see.
class WindowReader {
 public:
  explicit WindowReader(const Geometry& geometry) : g_(geometry) {
    for (std::int64_t z = 0; z < g_.window[0]; ++z) {
      for (std::int64_t y = 0; y < g_.window[1]; ++y) {
        for (std::int64_t x = 0; x < g_.window[2]; ++x) {
          steps_.push_back((z * g_.dilation[0] * g_.input[1] + y * g_.dilation[1]) * g_.input[2] + x * g_.dilation[2]);
        }
      }
    }
  }

  // Turns to the output position `at`, 0 .. Volume(output) - 1.
  void MoveTo(std::int64_t at) {
    const Extents place{at / (g_.output[1] * g_.output[2]), at / g_.output[2] % g_.output[1], at % g_.output[2]};
    inside_ = !g_.transposed;
    for (std::size_t axis = 0; axis < kAxes; ++axis) {
      sources_[axis].resize(static_cast<std::size_t>(g_.window[axis]));
      for (std::int64_t k = 0; k < g_.window[axis]; ++k) {
        const std::int64_t source = g_.Source(axis, place[axis], k);
        sources_[axis][static_cast<std::size_t>(k)] = source;
        inside_ = inside_ && source >= 0;
      }
    }
  }

  // `plane`: [depth, rows, columns] of one channel; `out`: as many values as the window has.
  void Read(const float* plane, float* out) const {
    if (inside_) {
      const float* const first = plane + At(sources_[0][0], sources_[1][0], sources_[2][0]);
      for (const std::int64_t step : steps_) *out++ = first[step];
      return;
    }
    for (const std::int64_t z : sources_[0]) {
      for (const std::int64_t y : sources_[1]) {
        for (const std::int64_t x : sources_[2]) *out++ = z >= 0 && y >= 0 && x >= 0 ? plane[At(z, y, x)] : 0.0F;
      }
    }
  }

 private:
  [[nodiscard]] std::int64_t At(std::int64_t z, std::int64_t y, std::int64_t x) const {
    return (z * g_.input[1] + y) * g_.input[2] + x;
  }

  const Geometry& g_;
  std::vector<std::int64_t> steps_;  // from the window's first value to each of them
  std::array<std::vector<std::int64_t>, kAxes> sources_;
  bool inside_ = false;  // the whole window
};

}  // namespace

bool HasKnownInputs(const Layer& layer) {
  return layer.uses == 1 && layer.meets_whole_input && layer.multiplies() && (!layer.is_convolution() || layer.window);
}

std::int64_t InputPositions(const Layer& layer, const torch::Tensor& input) {
  if (!layer.is_convolution()) return input.numel() / input.size(-1);
  return input.size(0) * Volume(GeometryOf(layer, input).output);
}

torch::Tensor DrawPositions(std::int64_t positions, std::int64_t count, at::Generator& generator) {
  if (positions <= count) return torch::arange(positions);
  return std::get<0>(torch::randint(positions, {count}, generator, torch::kInt64).sort());
}

torch::Tensor GatherInputs(const Layer& layer, const torch::Tensor& input, const torch::Tensor& positions) {
  if (!layer.is_convolution()) {
    return input.reshape({-1, input.size(-1)}).index_select(0, positions).unsqueeze(0);
  }
  const Geometry geometry = GeometryOf(layer, input);
  const torch::Tensor values = input.to(torch::kFloat32).contiguous(), chosen = positions.contiguous();
  const std::int64_t count = chosen.size(0), channels = values.size(1), groups = layer.window->groups;
  const std::int64_t area = Volume(geometry.window), per_image = Volume(geometry.output);
  const std::int64_t plane = Volume(geometry.input), per_group = channels / groups;
  torch::Tensor gathered = torch::empty({groups, count, per_group * area}, torch::kFloat32);
  const float* const from = values.data_ptr<float>();
  const std::int64_t* const position = chosen.data_ptr<std::int64_t>();
  float* const to = gathered.data_ptr<float>();
  at::parallel_for(0, count, 64, [&](std::int64_t begin, std::int64_t end) {
    WindowReader reader(geometry);
    for (std::int64_t p = begin; p < end; ++p) {
      reader.MoveTo(position[p] % per_image);
      const float* const image = from + position[p] / per_image * channels * plane;
      for (std::int64_t c = 0; c < channels; ++c) {
        reader.Read(image + c * plane, to + ((c / per_group * count + p) * per_group + c % per_group) * area);
      }
    }
  });
  return gathered;
}

torch::Tensor GatherOutputs(const Layer& layer, const torch::Tensor& output, const torch::Tensor& positions) {
  if (!layer.is_convolution()) return output.reshape({-1, output.size(-1)}).index_select(0, positions);
  const torch::Tensor values = output.to(torch::kFloat32).contiguous(), chosen = positions.contiguous();
  const std::int64_t channels = values.size(1), area = Volume(PositionSizes(values, layer.position_dims()));
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
