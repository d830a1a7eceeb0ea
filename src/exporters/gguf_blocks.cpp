#include "exporters/gguf_blocks.h"

#include <c10/util/Half.h>

#include <array>
#include <cstring>

#include "bitplan/core/error.h"

namespace bitplan::gguf {
namespace {

constexpr std::int64_t kSmallBlock = 32, kSignBlock = 128, kSuperBlock = 256;

std::int64_t BlockOf(Type type) {
  switch (type) {
    case Type::kQ1_0:
      return kSignBlock;
    case Type::kQ2_K:
    case Type::kQ3_K:
    case Type::kQ6_K:
      return kSuperBlock;
    default:
      return kSmallBlock;
  }
}

void AppendHalf(std::string& bytes, float value) {
  const std::uint16_t bits = c10::Half(value).x;
  bytes += static_cast<char>(bits & 0xFF);
  bytes += static_cast<char>(bits >> 8);
}

template <std::size_t size>
void AppendBytes(std::string& bytes, const std::array<std::uint8_t, size>& block) {
  bytes.append(reinterpret_cast<const char*>(block.data()), size);
}

// Element j in the low half of byte j, element j + 16 in the high half.
std::array<std::uint8_t, 16> Nibbles(const std::int8_t* q, int low) {
  std::array<std::uint8_t, 16> bytes{};
  for (int j = 0; j < 16; ++j) {
    bytes[static_cast<std::size_t>(j)] =
        static_cast<std::uint8_t>(((q[j] - low) & 0xF) | ((q[j + 16] - low) & 0xF) << 4);
  }
  return bytes;
}

// Bit j of 32: the fifth bit of element j.
std::array<std::uint8_t, 4> FifthBits(const std::int8_t* q, int low) {
  std::array<std::uint8_t, 4> bytes{};
  for (int j = 0; j < 32; ++j) {
    bytes[static_cast<std::size_t>(j / 8)] |= static_cast<std::uint8_t>(((q[j] - low) >> 4 & 1) << j % 8);
  }
  return bytes;
}

// Two bits an element: of 128 elements the first 32 in the lowest bits of 32 bytes, the next 32 above them.
std::array<std::uint8_t, 64> Pairs(const std::int8_t* q, int low) {
  std::array<std::uint8_t, 64> bytes{};
  for (int i = 0; i < kSuperBlock; ++i) {
    bytes[static_cast<std::size_t>(i / 128 * 32 + i % 32)] |=
        static_cast<std::uint8_t>(((q[i] - low) & 3) << (i % 128 / 32 * 2));
  }
  return bytes;
}

void AppendSigns(std::string& bytes, const std::int8_t* q, float d) {
  AppendHalf(bytes, d);
  std::array<std::uint8_t, 16> signs{};
  for (int i = 0; i < kSignBlock; ++i) {
    if (q[i] > 0) signs[static_cast<std::size_t>(i / 8)] |= static_cast<std::uint8_t>(1 << i % 8);
  }
  AppendBytes(bytes, signs);
}

void AppendQ2K(std::string& bytes, const std::int8_t* q, float d, float m) {
  std::array<std::uint8_t, 16> scales;
  scales.fill(0x11);  // both small scales are one
  AppendBytes(bytes, scales);
  AppendBytes(bytes, Pairs(q, 0));
  AppendHalf(bytes, d);
  AppendHalf(bytes, m);
}

void AppendQ3K(std::string& bytes, const std::int8_t* q, float d) {
  std::array<std::uint8_t, 32> high{};  // bit 4 * (i / 128) + i % 128 / 32 of byte i % 32
  for (int i = 0; i < kSuperBlock; ++i) {
    high[static_cast<std::size_t>(i % 32)] |= static_cast<std::uint8_t>(((q[i] + 4) >> 2 & 1) << i / 32);
  }
  AppendBytes(bytes, high);
  AppendBytes(bytes, Pairs(q, -4));
  std::array<std::uint8_t, 12> scales;  // 16 of six bits, minus 32: all are 33
  scales.fill(0x11);
  for (std::size_t i = 8; i < scales.size(); ++i) scales[i] = 0xAA;
  AppendBytes(bytes, scales);
  AppendHalf(bytes, d);
}

void AppendQ6K(std::string& bytes, const std::int8_t* q, float d) {
  std::array<std::uint8_t, 128> low{};
  std::array<std::uint8_t, 64> high{};
  for (int i = 0; i < kSuperBlock; ++i) {
    const int code = q[i] + 32, half = i / 128, at = i % 128;
    low[static_cast<std::size_t>(half * 64 + at % 64)] |= static_cast<std::uint8_t>((code & 0xF) << at / 64 * 4);
    high[static_cast<std::size_t>(half * 32 + at % 32)] |= static_cast<std::uint8_t>((code >> 4) << at / 32 * 2);
  }
  AppendBytes(bytes, low);
  AppendBytes(bytes, high);
  bytes.append(16, '\1');
  AppendHalf(bytes, d);
}

void AppendSmall(std::string& bytes, Type type, const std::int8_t* q, float d, float m) {
  const bool affine = type == Type::kQ4_1 || type == Type::kQ5_1;
  const int low = affine ? 0 : type == Type::kQ4_0 ? -8 : -16;
  AppendHalf(bytes, d);
  if (affine) AppendHalf(bytes, m);
  if (type == Type::kQ8_0) {
    bytes.append(reinterpret_cast<const char*>(q), kSmallBlock);
    return;
  }
  if (type == Type::kQ5_0 || type == Type::kQ5_1) AppendBytes(bytes, FifthBits(q, low));
  AppendBytes(bytes, Nibbles(q, low));
}

}  // namespace

BlockGrid GridFor(int bits, bool half, std::int64_t columns) {
  const bool super = columns % kSuperBlock == 0;
  if (columns == 0 || columns % kSmallBlock != 0) return {};
  if (!half) {
    if (bits <= 2 && super) return {Type::kQ2_K, 1, 2, 1.0F, 2.0F};
    if (bits <= 3 && super) return {Type::kQ3_K};
    if (bits <= 4) return {Type::kQ4_0};
    if (bits == 5) return {Type::kQ5_0};
    if (bits == 6 && super) return {Type::kQ6_K};
    return {Type::kQ8_0};
  }
  if (bits == 1 && columns % kSignBlock == 0) return {Type::kQ1_0, 2, 1, 0.5F, 0.0F};
  if (bits == 2 && super) return {Type::kQ2_K, 1, 2, 1.0F, 1.5F};
  if (bits <= 3) return {Type::kQ4_0, 2, 1, 0.5F, 0.0F};
  if (bits == 4) return {Type::kQ4_1, 1, 8, 1.0F, -7.5F};
  if (bits == 5) return {Type::kQ5_1, 1, 16, 1.0F, -15.5F};
  if (bits <= 7) return {Type::kQ8_0, 2, 1, 0.5F, 0.0F};
  return {};
}

int StoredBits(const BlockGrid& grid) {
  if (grid.type == Type::kQ2_K && grid.m != 2.0F) return 0;  // 1.5 times a float16 is none
  switch (grid.type) {
    case Type::kQ1_0:
      return 1;
    case Type::kQ2_K:
      return 2;
    case Type::kQ3_K:
      return 3;
    case Type::kQ4_0:
      return 4;
    case Type::kQ5_0:
      return 5;
    case Type::kQ6_K:
      return 6;
    case Type::kQ8_0:
      return 8;
    default:
      return 0;
  }
}

float ValueOf(Type type, int q, float d, float m) {
  const float product = static_cast<float>(q) * d;
  if (type == Type::kQ2_K) return product - m;
  return type == Type::kQ4_1 || type == Type::kQ5_1 ? product + m : product;
}

void AppendRow(std::string& bytes, Type type, const std::int8_t* q, std::int64_t count, float d, float m) {
  const std::int64_t block = BlockOf(type);
  if (count % block != 0) throw Error(ErrorKind::kInternal, "gguf: a row is no multiple of its blocks");
  for (std::int64_t at = 0; at < count; at += block) {
    switch (type) {
      case Type::kQ1_0:
        AppendSigns(bytes, q + at, d);
        break;
      case Type::kQ2_K:
        AppendQ2K(bytes, q + at, d, m);
        break;
      case Type::kQ3_K:
        AppendQ3K(bytes, q + at, d);
        break;
      case Type::kQ6_K:
        AppendQ6K(bytes, q + at, d);
        break;
      default:
        AppendSmall(bytes, type, q + at, d, m);
    }
  }
}

bool IsHalf(float value) { return static_cast<float>(c10::Half(value)) == value; }

}  // namespace bitplan::gguf
