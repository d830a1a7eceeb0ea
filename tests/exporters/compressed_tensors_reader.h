// Weights of a compressed-tensors file, read as its documentation describes it. Shares nothing with the exporter.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "support/catch_torch.h"

namespace bitplan::testing {

template <typename Number>
inline std::vector<Number> NumbersIn(const safetensors::Tensor& tensor) {
  std::vector<Number> numbers(tensor.bytes.size() / sizeof(Number));
  std::memcpy(numbers.data(), tensor.bytes.data(), tensor.bytes.size());
  return numbers;
}

// Rows of int32 words: element i of a row is the bits from i * bits on, minus 2^(bits-1).
inline torch::Tensor Decompressed(const safetensors::File& file, const std::string& module, int bits) {
  const auto& packed = file.tensors.at(module + ".weight_packed");
  const auto& scale = file.tensors.at(module + ".weight_scale");
  const auto& shape = file.tensors.at(module + ".weight_shape");
  REQUIRE(packed.type == "I32");
  REQUIRE(scale.type == "F32");
  REQUIRE(shape.type == "I64");
  const auto sizes = NumbersIn<std::int64_t>(shape);
  REQUIRE(sizes.size() == 2);
  const std::int64_t rows = sizes[0], columns = sizes[1], words = (columns * bits + 31) / 32;
  REQUIRE(packed.shape == std::vector<std::int64_t>{rows, words});
  REQUIRE(scale.shape == std::vector<std::int64_t>{rows, 1});
  const auto word = NumbersIn<std::uint32_t>(packed);
  const auto scales = NumbersIn<float>(scale);
  torch::Tensor values = torch::empty({rows, columns});
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      std::int64_t code = 0;
      for (int b = 0; b < bits; ++b) {
        const std::int64_t at = c * bits + b;
        code |= static_cast<std::int64_t>(word[static_cast<std::size_t>(r * words + at / 32)] >> (at % 32) & 1U) << b;
      }
      values.data_ptr<float>()[r * columns + c] =
          static_cast<float>(code - (std::int64_t{1} << (bits - 1))) * scales[static_cast<std::size_t>(r)];
    }
  }
  return values;
}

}  // namespace bitplan::testing
