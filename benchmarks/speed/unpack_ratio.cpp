// Claim: codes of any width are unpacked at a quarter of memcpy's speed at least, counted in bytes of codes written.
// Command: build/release/benchmarks/unpack_ratio [MILLIONS OF CODES]
// Prints one JSON line: GB/s of memcpy and of unpacking at every width, on one thread, from memory to memory that is
// there already (median of the repetitions, taken in turn); `values`: from packed codes to float32 weights, against
// memcpy of as many floats.
#include <ATen/Parallel.h>
#include <torch/types.h>

#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bitplan/quantizers/packing.h"
#include "bitplan/quantizers/quantized_tensor.h"
#include "timing.h"

namespace {

using namespace bitplan;

constexpr int kRepetitions = 9;

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
  const std::int64_t count = (argc > 1 ? std::stoll(argv[1]) : 64) * 1'000'000;
  const std::vector<std::int64_t> shape = {1000, count / 1000};
  const auto gigabytes = [](std::int64_t bytes, double seconds) { return static_cast<double>(bytes) / seconds / 1e9; };
  nlohmann::ordered_json widths = nlohmann::ordered_json::array();
  double least = 1e9, least_values = 1e9;
  for (int bits = 1; bits <= 8; ++bits) {
    QuantizedTensor tensor;
    tensor.bits = bits;
    tensor.scales = torch::rand({shape[0]});
    tensor.codes = torch::randint(-(1 << (bits - 1)), 1 << (bits - 1), shape, torch::kInt16).to(torch::kInt8);
    const std::string packed = PackCodes(tensor);
    const auto* const from = reinterpret_cast<const std::uint8_t*>(packed.data());
    std::vector<std::uint8_t> unpacked(static_cast<std::size_t>(count)), copied(static_cast<std::size_t>(count));
    const torch::Tensor values = tensor.Values(), copy = torch::empty_like(values);
    std::vector<double> copying, unpacking, copying_values, making_values;
    for (int i = 0; i < kRepetitions; ++i) {
      copying.push_back(Seconds([&] { std::memcpy(copied.data(), unpacked.data(), copied.size()); }));
      unpacking.push_back(Seconds([&] { UnpackBits(from, count, bits, unpacked.data()); }));
      // Both take memory anew, as a reader does.
      copying_values.push_back(Seconds([&] {
        const torch::Tensor fresh = torch::empty_like(values);
        std::memcpy(fresh.data_ptr(), values.data_ptr(), values.nbytes());
      }));
      making_values.push_back(Seconds([&] {
        tensor.codes = UnpackCodes(packed, bits, shape);
        (void)tensor.Values();
      }));
    }
    const double ratio = Median(copying) / Median(unpacking);
    const double ratio_values = Median(copying_values) / Median(making_values);
    least = std::min(least, ratio);
    least_values = std::min(least_values, ratio_values);
    widths.push_back({{"bits", bits},
                      {"memcpy_gb_per_s", gigabytes(count, Median(copying))},
                      {"unpack_gb_per_s", gigabytes(count, Median(unpacking))},
                      {"ratio", ratio},
                      {"values_ratio", ratio_values}});
  }
  const nlohmann::ordered_json result = {
      {"codes", count}, {"threads", 1}, {"widths", widths}, {"ratio", least}, {"values_ratio", least_values}};
  std::puts(result.dump().c_str());
}
