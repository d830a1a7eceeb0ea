// Eight codes are b bytes: they are moved together as one word of 64 bits, in three steps that halve their distance.
#include "bitplan/quantizers/packing.h"

#include <torch/types.h>

#include <algorithm>
#include <cstring>

#include "bitplan/core/error.h"
#include "quantizers/vectorized.h"

namespace bitplan {
namespace {

constexpr std::int64_t kGroup = 8;    // codes in a word
constexpr std::int64_t kPart = 4096;  // codes that stay in the nearest cache between two steps; a multiple of kGroup

// The bits of a word that stay in a step: the first half of each part that the step cuts in two.
struct Masks {
  std::uint64_t whole, halves, quarters, eighths;
};

Masks MasksOf(int bits) {
  const auto low = [](int count) { return ~std::uint64_t{0} >> (64 - count); };
  return {low(8 * bits), low(4 * bits), low(2 * bits) * 0x0000000100000001U, low(bits) * 0x0001000100010001U};
}

BITPLAN_VECTORIZED void UnpackWords(const std::uint8_t* packed, std::int64_t words, int bits, std::uint8_t* codes) {
  const Masks masks = MasksOf(bits);
  for (std::int64_t i = 0; i < words; ++i) {
    std::uint64_t word = 0;
    std::memcpy(&word, packed + i * bits, sizeof word);
    word &= masks.whole;
    word = (word & masks.halves) | (word & ~masks.halves) << (32 - 4 * bits);
    word = (word & masks.quarters) | (word & ~masks.quarters) << (16 - 2 * bits);
    word = (word & masks.eighths) | (word & ~masks.eighths) << (8 - bits);
    std::memcpy(codes + i * kGroup, &word, sizeof word);
  }
}

std::uint64_t PackedWord(const std::uint8_t* codes, int bits, const Masks& masks) {
  std::uint64_t word = 0;
  std::memcpy(&word, codes, sizeof word);
  word = (word & masks.eighths) | (word & ~masks.eighths) >> (8 - bits);
  word = (word & masks.quarters) | (word & ~masks.quarters) >> (16 - 2 * bits);
  return (word & masks.halves) | (word & ~masks.halves) >> (32 - 4 * bits);
}

BITPLAN_VECTORIZED void AddToBytes(const std::int8_t* codes, std::int64_t count, int number, std::uint8_t* bytes) {
  for (std::int64_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(codes[i] + number);
}

BITPLAN_VECTORIZED void TakeFromBytes(std::uint8_t* bytes, std::int64_t count, int number) {
  for (std::int64_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(bytes[i] - number);
}

}  // namespace

std::int64_t PackedBytes(std::int64_t count, int bits) {
  return count / 8 * bits + (count % 8 * bits + 7) / 8;  // no product that overflows
}

void PackBits(const std::uint8_t* codes, std::int64_t count, int bits, std::uint8_t* packed) {
  const Masks masks = MasksOf(bits);
  const std::int64_t words = count / kGroup;
  for (std::int64_t i = 0; i < words; ++i) {
    const std::uint64_t word = PackedWord(codes + i * kGroup, bits, masks);
    std::memcpy(packed + i * bits, &word, static_cast<std::size_t>(bits));
  }
  const std::int64_t left = count - words * kGroup;
  if (left == 0) return;
  std::uint8_t last[kGroup] = {};
  std::copy(codes + words * kGroup, codes + count, last);
  const std::uint64_t word = PackedWord(last, bits, masks);
  std::memcpy(packed + words * bits, &word, static_cast<std::size_t>(PackedBytes(left, bits)));
}

void UnpackBits(const std::uint8_t* packed, std::int64_t count, int bits, std::uint8_t* codes) {
  // A word is read with 8 bytes, of which the last ones may lie behind the end.
  const std::int64_t bytes = PackedBytes(count, bits);
  const std::int64_t words = bytes < kGroup ? 0 : std::min(count / kGroup, (bytes - kGroup) / bits + 1);
  UnpackWords(packed, words, bits, codes);
  for (std::int64_t done = words * kGroup; done < count; done += kGroup) {
    const std::int64_t some = std::min(kGroup, count - done), from = done / kGroup * bits;
    std::uint8_t word[kGroup] = {}, last[kGroup];
    std::copy(packed + from, packed + from + PackedBytes(some, bits), word);
    UnpackWords(word, 1, bits, last);
    std::copy(last, last + some, codes + done);
  }
}

std::string PackCodes(const QuantizedTensor& tensor) {
  if (tensor.bits == 0) return {};
  const torch::Tensor flat = tensor.codes.contiguous();
  const std::int64_t count = flat.numel();
  const auto* const codes = flat.data_ptr<std::int8_t>();
  const int half = 1 << (tensor.bits - 1);
  const bool fits = count == 0 || (flat.min().item<int>() >= -half && flat.max().item<int>() < half);
  if (!fits) throw Error(ErrorKind::kInternal, "codes beyond " + std::to_string(tensor.bits) + " bits");
  std::string packed(static_cast<std::size_t>(PackedBytes(count, tensor.bits)), '\0');
  std::uint8_t bytes[kPart];
  for (std::int64_t begin = 0; begin < count; begin += kPart) {
    const std::int64_t some = std::min(kPart, count - begin);
    AddToBytes(codes + begin, some, 1 << (tensor.bits - 1), bytes);
    PackBits(bytes, some, tensor.bits, reinterpret_cast<std::uint8_t*>(packed.data()) + begin / kGroup * tensor.bits);
  }
  return packed;
}

torch::Tensor UnpackCodes(std::string_view packed, int bits, const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) {
      throw Error(ErrorKind::kData, "codes of a weight that no memory holds");
    }
  }
  if (static_cast<std::int64_t>(packed.size()) != PackedBytes(count, bits)) {
    throw Error(ErrorKind::kData, "codes of " + std::to_string(count) + " weights at " + std::to_string(bits) +
                                      " bits take " + std::to_string(PackedBytes(count, bits)) + " bytes, not " +
                                      std::to_string(packed.size()));
  }
  if (bits == 0) return torch::zeros({1}, torch::kInt8).expand({count}).reshape(shape);
  torch::Tensor codes = torch::empty(shape, torch::kInt8);
  auto* const bytes = reinterpret_cast<std::uint8_t*>(codes.data_ptr<std::int8_t>());
  const auto* const from = reinterpret_cast<const std::uint8_t*>(packed.data());
  for (std::int64_t begin = 0; begin < count; begin += kPart) {
    const std::int64_t some = std::min(kPart, count - begin);
    UnpackBits(from + begin / kGroup * bits, some, bits, bytes + begin);
    TakeFromBytes(bytes + begin, some, 1 << (bits - 1));
  }
  return codes;
}

}  // namespace bitplan
