// Rows of integers in the blocks of ggml. Each type holds a fixed grid; a block has a scale d (and some an offset m) in
// float16:
//
//   type    numbers a block  bytes  value              q
//   Q1_0    128              18     q d                -1, 1
//   Q2_K    256              84     q d - m            0..3
//   Q3_K    256              110    q d                -4..3
//   Q4_0    32               18     q d                -8..7
//   Q4_1    32               20     q d + m            0..15
//   Q5_0    32               22     q d                -16..15
//   Q5_1    32               24     q d + m            0..31
//   Q6_K    256              210    q d                -32..31
//   Q8_0    32               34     q d                -128..127
//
// The super-blocks (K) have small scales of their own within a block; all of them are one here.
// Source: github.com/ggml-org/ggml, src/ggml-common.h (blocks) and src/ggml-quants.c (dequantize_row_...), version
// 0.21.0, commit d99724f. Q1_0 came in 2026.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bitplan::gguf {

// ggml_type.
enum class Type : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ6_K = 14,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kBf16 = 30,
  kQ1_0 = 41,
};

// How a block type holds a grid of a plan: code c of a weight becomes q = times * c + plus.
struct BlockGrid {
  Type type = Type::kF32;  // kF32: no block type holds the grid
  int times = 1, plus = 0;
  float d = 1.0F, m = 0.0F;  // for a scale of one: (c + offset) is q d, q d + m, or q d - m
};

// The smallest block type for codes of `bits` bits (0..8), the grid half or zero, and rows of `columns` numbers.
[[nodiscard]] BlockGrid GridFor(int bits, bool half, std::int64_t columns);

// Bits of one q in its blocks, without what a block holds beside; 0 where no block type holds the grid, and of types
// that hold an offset m which such a weight does not need.
[[nodiscard]] int StoredBits(const BlockGrid& grid);

// What ggml makes of q, in float32.
[[nodiscard]] float ValueOf(Type type, int q, float d, float m);

// One row: `count` numbers, a multiple of the block. d and m are exact in float16.
void AppendRow(std::string& bytes, Type type, const std::int8_t* q, std::int64_t count, float d, float m);

// Whether float16 holds this number exactly.
[[nodiscard]] bool IsHalf(float value);

}  // namespace bitplan::gguf
