// GGUF, read as docs/gguf.md of ggml describes it, with the blocks as its dequantize_row functions read them. Shares
// nothing with the exporter.
#pragma once

#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/catch_torch.h"

namespace bitplan::testing {

struct GgufTensor {
  std::vector<std::int64_t> shape;  // outermost first
  int type = 0;
  std::string data;
};

struct Gguf {
  std::map<std::string, std::string> texts;
  std::map<std::string, std::uint32_t> numbers;
  std::map<std::string, GgufTensor> tensors;
};

inline constexpr int kGgufF32 = 0;

struct BlockSize {
  std::int64_t numbers;
  std::size_t bytes;
};

inline BlockSize SizeOfType(int type) {
  static const std::map<int, BlockSize> sizes = {{0, {1, 4}},      {2, {32, 18}}, {3, {32, 20}},   {6, {32, 22}},
                                                 {7, {32, 24}},    {8, {32, 34}}, {10, {256, 84}}, {11, {256, 110}},
                                                 {14, {256, 210}}, {24, {1, 1}},  {27, {1, 8}},    {41, {128, 18}}};
  return sizes.at(type);
}

inline Gguf ReadGguf(const std::string& file) {
  std::size_t at = 0;
  const auto take = [&](void* to, std::size_t size) {
    if (size > file.size() - at) throw std::runtime_error("gguf reader: too short");
    std::memcpy(to, file.data() + at, size);
    at += size;
  };
  const auto number32 = [&] {
    std::uint32_t value = 0;
    take(&value, 4);
    return value;
  };
  const auto number64 = [&] {
    std::uint64_t value = 0;
    take(&value, 8);
    return value;
  };
  const auto text = [&] {
    std::string value(number64(), '\0');
    take(value.data(), value.size());
    return value;
  };
  Gguf gguf;
  REQUIRE(file.substr(0, 4) == "GGUF");
  at = 4;
  REQUIRE(number32() == 3);
  const auto tensors = number64(), pairs = number64();
  for (std::uint64_t i = 0; i < pairs; ++i) {
    const std::string key = text();
    const auto type = number32();
    REQUIRE((type == 8 || type == 4));
    if (type == 8) gguf.texts[key] = text();
    if (type == 4) gguf.numbers[key] = number32();
  }
  std::vector<std::pair<std::string, std::uint64_t>> places;
  for (std::uint64_t i = 0; i < tensors; ++i) {
    const std::string name = text();
    GgufTensor& tensor = gguf.tensors[name];
    tensor.shape.resize(number32());
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size)
      *size = static_cast<std::int64_t>(number64());
    tensor.type = static_cast<int>(number32());
    places.emplace_back(name, number64());
  }
  const std::size_t begin = (at + 31) / 32 * 32;
  std::uint64_t expected = 0;
  for (const auto& [name, offset] : places) {
    GgufTensor& tensor = gguf.tensors.at(name);
    REQUIRE(offset == expected);
    std::int64_t count = 1;
    for (const std::int64_t size : tensor.shape) count *= size;
    const BlockSize block = SizeOfType(tensor.type);
    REQUIRE(tensor.shape.back() % block.numbers == 0);
    const std::size_t bytes = static_cast<std::size_t>(count / block.numbers) * block.bytes;
    at = begin + offset;
    tensor.data.resize(bytes);
    take(tensor.data.data(), bytes);
    expected += (bytes + 31) / 32 * 32;
  }
  CHECK(begin + expected == file.size());
  return gguf;
}

inline float HalfAt(const std::uint8_t* bytes) {
  return c10::Half(static_cast<std::uint16_t>(bytes[0] | bytes[1] << 8), c10::Half::from_bits());
}

// One block of ggml into float32.
inline void ReadBlock(int type, const std::uint8_t* x, float* y) {
  if (type == 41) {  // signs
    for (int j = 0; j < 128; ++j) y[j] = (x[2 + j / 8] >> j % 8 & 1) != 0 ? HalfAt(x) : -HalfAt(x);
  } else if (type == 8) {
    for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(static_cast<std::int8_t>(x[2 + j])) * HalfAt(x);
  } else if (type == 2 || type == 3) {
    const std::uint8_t* q = x + (type == 2 ? 2 : 4);
    for (int j = 0; j < 32; ++j) {
      const int code = j < 16 ? q[j] & 15 : q[j - 16] >> 4;
      y[j] =
          type == 2 ? static_cast<float>(code - 8) * HalfAt(x) : static_cast<float>(code) * HalfAt(x) + HalfAt(x + 2);
    }
  } else if (type == 6 || type == 7) {
    const std::uint8_t *high = x + (type == 6 ? 2 : 4), *q = high + 4;
    for (int j = 0; j < 32; ++j) {
      const int code = (j < 16 ? q[j] & 15 : q[j - 16] >> 4) | (high[j / 8] >> j % 8 & 1) << 4;
      y[j] =
          type == 6 ? static_cast<float>(code - 16) * HalfAt(x) : static_cast<float>(code) * HalfAt(x) + HalfAt(x + 2);
    }
  } else if (type == 10) {
    const std::uint8_t *scales = x, *q = x + 16;
    const float d = HalfAt(x + 80), m = HalfAt(x + 82);
    for (int i = 0; i < 256; ++i) {
      const int part = i / 16, code = q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
      y[i] = d * static_cast<float>(scales[part] & 15) * static_cast<float>(code) -
             m * static_cast<float>(scales[part] >> 4);
    }
  } else if (type == 11) {
    const std::uint8_t *high = x, *q = x + 32, *packed = x + 96;
    for (int i = 0; i < 256; ++i) {
      const int part = i / 16, low = part < 8 ? packed[part] & 15 : packed[part - 8] >> 4;
      const int scale = (low | (packed[8 + part % 4] >> (part / 4 * 2) & 3) << 4) - 32;
      const int code =
          (q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) - ((high[i % 32] >> (i / 32) & 1) != 0 ? 0 : 4);
      y[i] = HalfAt(x + 108) * static_cast<float>(scale) * static_cast<float>(code);
    }
  } else if (type == 14) {
    const std::uint8_t *low = x, *high = x + 128;
    for (int i = 0; i < 256; ++i) {
      const int half = i / 128, within = i % 128;
      const int nibble = low[half * 64 + within % 64] >> (within / 64 * 4) & 15;
      const int code = (nibble | (high[half * 32 + within % 32] >> (within / 32 * 2) & 3) << 4) - 32;
      y[i] = HalfAt(x + 208) * static_cast<float>(static_cast<std::int8_t>(x[192 + i / 16])) * static_cast<float>(code);
    }
  } else {
    throw std::runtime_error("gguf reader: type");
  }
}

inline torch::Tensor ValuesIn(const GgufTensor& tensor) {
  torch::Tensor values = torch::empty(tensor.shape);
  if (tensor.type == kGgufF32) {
    std::memcpy(values.data_ptr(), tensor.data.data(), tensor.data.size());
    return values;
  }
  const BlockSize block = SizeOfType(tensor.type);
  for (std::int64_t b = 0; b < values.numel() / block.numbers; ++b) {
    ReadBlock(tensor.type,
              reinterpret_cast<const std::uint8_t*>(tensor.data.data()) + static_cast<std::size_t>(b) * block.bytes,
              values.data_ptr<float>() + b * block.numbers);
  }
  return values;
}

inline torch::Tensor WeightIn(const Gguf& gguf, const std::string& name) {
  const torch::Tensor values = ValuesIn(gguf.tensors.at(name));
  const auto scales = gguf.tensors.find(name + ".scale");
  return scales == gguf.tensors.end() ? values : (values * ValuesIn(scales->second).unsqueeze(1)).contiguous();
}

}  // namespace bitplan::testing
