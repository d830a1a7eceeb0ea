#include <fmt/format.h>

#include "bitplan/core/error.h"
#include "bitplan/core/problem.h"
#include "bitplan/core/resource.h"
#include "bitplan/core/suggest.h"

namespace bitplan {
namespace {

std::int64_t WeightBits(const Unit& unit, int width) { return unit.weights * width; }

std::int64_t Bytes(const Unit& unit, int width) { return StoredBits(unit, width) / 8; }

std::int64_t BitOperations(const Unit& unit, int width) { return unit.macs * width * unit.activation_bits; }

std::int64_t Nothing(const Unit&, int) { return 0; }

std::int64_t Nanoseconds(const Unit& unit, int width) {
  const LatencyEntry* const entry = FindLatency(unit.latency, width, unit.activation_bits);
  if (entry != nullptr) return entry->nanoseconds;
  const auto word = [](int bits) { return bits > 16 ? std::string("float") : fmt::format("{}-bit", bits); };
  throw Error(
      ErrorKind::kUsage,
      fmt::format("allocate.latency: no row covers layer {} with {} weights and {} activations, nor wider ones; "
                  "measure it, or add a row for its kind",
                  unit.name, word(width), word(unit.activation_bits)));
}

}  // namespace

const std::vector<Resource>& Resources() {
  static const std::vector<Resource> resources = {
      {"average_bits", "average bits", "bits per weight", "bit of one weight",
       "what the plan may spend, averaged over the weights of all quantizable layers", true, WeightBits},
      {"bytes", "bytes", "bytes", "byte", "the same as the size of the packed weights with scales and widths", false,
       Bytes},
      {"bops", "bit operations", "bit operations", "bit operation",
       "multiply-accumulates of one input x weight bits x activation bits, 32 where these are float", false,
       BitOperations},
      {"activation_bytes", "peak activations", "bytes", "byte",
       "most bytes of activations that are live at once, of one input", false, Nothing, ResourceKind::kPeak},
      {"latency", "microseconds of latency", "microseconds", "nanosecond",
       "time of one input, the sum over all layers by the table of allocate.latency", false, Nanoseconds,
       ResourceKind::kTimed, 1000},
  };
  return resources;
}

const Resource& FindResource(const std::string& name) { return FindByName(Resources(), "resource", name); }

const Resource& AverageBits() { return Resources()[0]; }
const Resource& StoredBytes() { return Resources()[1]; }
const Resource& ActivationMemory() { return Resources()[3]; }
const Resource& Latency() { return Resources()[4]; }

}  // namespace bitplan
