// Codes of b bits one after another, without a bit between them: code i takes the bits i*b .. i*b + b - 1, counted from
// the lowest bit of the first byte on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bitplan/quantizers/quantized_tensor.h"

namespace bitplan {

// Bytes that `count` codes of `bits` bits (0..8) take: the last byte may have bits left, which are zero.
[[nodiscard]] std::int64_t PackedBytes(std::int64_t count, int bits);

// `codes`: `count` numbers below 2^bits, bits 1..8; `packed`: PackedBytes(count, bits) bytes.
void PackBits(const std::uint8_t* codes, std::int64_t count, int bits, std::uint8_t* packed);
void UnpackBits(const std::uint8_t* packed, std::int64_t count, int bits, std::uint8_t* codes);

// The codes of a weight, in the order of its values, each plus 2^(bits-1). Empty at 0 bits.
[[nodiscard]] std::string PackCodes(const QuantizedTensor& tensor);
// int8, of this shape; zeros at 0 bits. Error(kData) when `packed` has another length than the shape asks for, before
// any memory is taken.
[[nodiscard]] torch::Tensor UnpackCodes(std::string_view packed, int bits, const std::vector<std::int64_t>& shape);

}  // namespace bitplan
