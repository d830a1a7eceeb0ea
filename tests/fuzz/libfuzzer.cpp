// One target as libFuzzer wants it; BITPLAN_FUZZ_TARGET is its function.
#include <cstddef>
#include <cstdint>

#include "fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  bitplan::fuzz::ParseOne([&] { bitplan::fuzz::BITPLAN_FUZZ_TARGET(bytes); });
  return 0;
}
