#include "bitplan/core/random.h"

#include <cmath>
#include <numeric>
#include <utility>

namespace bitplan {
namespace {

std::uint64_t SplitMix(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15ULL;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

std::uint64_t Fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3ULL;
  }
  return hash;
}

std::uint64_t RotateLeft(std::uint64_t value, int shift) { return (value << shift) | (value >> (64 - shift)); }

}  // namespace

RandomStream::RandomStream(std::uint64_t root_seed, std::string_view name) {
  std::uint64_t state = root_seed;
  state = SplitMix(state) ^ Fnv1a(name);
  for (auto& word : state_) word = SplitMix(state);
}

std::uint64_t RandomStream::Next() {
  const std::uint64_t result = RotateLeft(state_[1] * 5, 7) * 9;
  const std::uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = RotateLeft(state_[3], 45);
  return result;
}

double RandomStream::Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

double RandomStream::Uniform(double low, double high) { return low + (high - low) * Uniform(); }

double RandomStream::Normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_normal_;
  }
  double u = 0.0, v = 0.0, s = 0.0;
  do {
    u = Uniform(-1.0, 1.0);
    v = Uniform(-1.0, 1.0);
    s = u * u + v * v;
  } while (s >= 1.0 || s == 0.0);
  const double factor = std::sqrt(-2.0 * std::log(s) / s);
  spare_normal_ = v * factor;
  has_spare_ = true;
  return u * factor;
}

std::uint64_t RandomStream::Index(std::uint64_t size) {
  const std::uint64_t limit = size * (UINT64_MAX / size);
  std::uint64_t draw = Next();
  while (draw >= limit) draw = Next();
  return draw % size;
}

std::vector<std::int64_t> RandomStream::Permutation(std::int64_t size) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  for (std::int64_t i = size - 1; i > 0; --i) {
    std::swap(order[i], order[Index(static_cast<std::uint64_t>(i) + 1)]);
  }
  return order;
}

std::uint64_t StreamSeed(std::uint64_t root_seed, std::string_view name) {
  return RandomStream(root_seed, name).Next();
}

}  // namespace bitplan
