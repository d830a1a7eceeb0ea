// Randomness is an argument. A stream is named: (root seed, name) -> independent sequence, the same on every machine
// and compiler. No global generator exists, and adding a stream never shifts another.
//
// Generator: xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64 from the root seed and an FNV-1a hash of
// the name.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace bitplan {

class RandomStream {
 public:
  RandomStream(std::uint64_t root_seed, std::string_view name);

  // 64 uniform bits.
  [[nodiscard]] std::uint64_t Next();
  // Uniform in [0, 1), 53 bits.
  [[nodiscard]] double Uniform();
  // Uniform in [low, high).
  [[nodiscard]] double Uniform(double low, double high);
  // Standard normal (polar method).
  [[nodiscard]] double Normal();
  // Uniform in {0, ..., size - 1} without modulo bias; size > 0.
  [[nodiscard]] std::uint64_t Index(std::uint64_t size);
  // Random order of 0 .. size - 1.
  [[nodiscard]] std::vector<std::int64_t> Permutation(std::int64_t size);

 private:
  std::array<std::uint64_t, 4> state_;
  double spare_normal_ = 0.0;
  bool has_spare_ = false;
};

// Seed for a generator that lives elsewhere (LibTorch's), drawn from the named stream.
[[nodiscard]] std::uint64_t StreamSeed(std::uint64_t root_seed, std::string_view name);

}  // namespace bitplan
