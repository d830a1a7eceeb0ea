// Weights in codes for tests of what reads and writes them.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "bitplan/quantizers/quantized_tensor.h"

namespace bitplan::testing {

inline bool SameBits(const torch::Tensor& a, const torch::Tensor& b) {
  const torch::Tensor one = a.contiguous(), other = b.contiguous();
  return one.sizes() == other.sizes() && one.scalar_type() == other.scalar_type() &&
         std::memcmp(one.data_ptr(), other.data_ptr(), one.nbytes()) == 0;
}

// Codes of every value that the width has, among them both ends; scales of both signs and a zero.
inline QuantizedTensor RandomCodes(int bits, float offset, std::vector<std::int64_t> shape, int channel_dim,
                                   bool per_channel) {
  QuantizedTensor tensor;
  tensor.bits = bits;
  tensor.offset = bits == 0 ? 0.0F : offset;
  tensor.channel_dim = channel_dim;
  const int half = bits == 0 ? 0 : 1 << (bits - 1);
  tensor.codes = bits == 0 ? torch::zeros(shape, torch::kInt8)
                           : torch::randint(-half, half, shape, torch::kInt64).to(torch::kInt8);
  if (bits > 0) tensor.codes.view(-1)[0] = -half;
  if (bits > 0) tensor.codes.view(-1)[-1] = half - 1;
  tensor.scales = torch::randn({per_channel ? shape[static_cast<std::size_t>(channel_dim)] : 1});
  if (per_channel) tensor.scales[0] = 0.0;
  if (bits == 0) tensor.scales.zero_();
  return tensor;
}

}  // namespace bitplan::testing
