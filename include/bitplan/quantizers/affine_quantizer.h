// The quantizer of a tensor of activations: one scale and one zero point for the whole tensor.
//
//     code = clamp(round(x / scale) + zero_point, 0, 2^bits - 1)        value = scale * (code - zero_point)
//
// Ties go to the even code. Zero is a level, so that padding and relu stay exact; the zero point of a tensor without
// negative values is 0. It is what PyTorch calls fake_quantize_per_tensor_affine, and ONNX QuantizeLinear.
//
// Networks that are trained with rounded inputs (bitplan/bayes) take levels at odd halves of the scale instead where a
// tensor has negative values (mid-rise): value = scale * (code - zero_point + 1/2), symmetric, and no level at zero.
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace bitplan {

struct AffineQuantizer {
  int bits = 32;  // 1..8 or 16; 32: the tensor stays in float
  float scale = 1.0F;
  std::int64_t zero_point = 0;  // 0 .. highest()
  bool half = false;            // levels at odd halves; the zero point is half of all codes

  [[nodiscard]] bool rounds() const { return bits <= 16; }
  [[nodiscard]] std::int64_t highest() const { return (std::int64_t{1} << bits) - 1; }
  // float32 of any shape; a new tensor.
  [[nodiscard]] torch::Tensor Apply(const torch::Tensor& values) const;
};

// Of every quantizer the sum of gradient * (rounded value - value), both tensors float32 of one shape.
[[nodiscard]] std::vector<double> ErrorDots(const torch::Tensor& values, const torch::Tensor& gradient,
                                            const std::vector<AffineQuantizer>& quantizers);

// What a layer makes of a tensor of activations: inputs of some of its output values, and its weights.
struct ActivationReader {
  torch::Tensor inputs;   // float32 [groups, positions, n]
  torch::Tensor weights;  // float32 [groups, n, channels]
};

// What is known of a tensor of activations: its ends over all values, and some of its values.
struct ActivationSample {
  float low = 0.0F, high = 0.0F;
  torch::Tensor values;  // float32 [n]; undefined until something was added

  std::map<std::size_t, ActivationReader> readers{};  // by layer; empty unless the range looks at outputs

  std::int64_t most_values = std::int64_t{1} << 18;
  std::int64_t step = 1;  // between values that are kept; the same for all calls, and doubled as they become too many

  // A share of `values`, at equal distances, is kept: at most `most_values` in all, over several calls too.
  void Add(const torch::Tensor& activations);
};

// `range`: max, from the lowest to the highest value; percentile, without 1 in 10,000 values at both ends together;
// mse, the share of the whole range, at most all of it, with the least squared error of `sample.values`; output, that
// with the least squared error of the outputs of `sample.readers`, relative to their power, and as mse without any.
// `grid`: zero, or half for levels at odd halves where there are negative values. `bits`: 1 to 16. Error(kData) for
// values that are not finite.
[[nodiscard]] AffineQuantizer FitActivation(const ActivationSample& sample, int bits, const std::string& range,
                                            const std::string& grid = "zero");

}  // namespace bitplan
