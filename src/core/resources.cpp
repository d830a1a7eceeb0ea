#include "bitplan/core/problem.h"
#include "bitplan/core/resource.h"
#include "bitplan/core/suggest.h"

namespace bitplan {
namespace {

std::int64_t WeightBits(const Unit& unit, int width) { return unit.weights * width; }

std::int64_t Bytes(const Unit& unit, int width) { return StoredBits(unit, width) / 8; }

std::int64_t BitOperations(const Unit& unit, int width) { return unit.macs * width * unit.activation_bits; }

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
  };
  return resources;
}

const Resource& FindResource(const std::string& name) { return FindByName(Resources(), "resource", name); }

const Resource& AverageBits() { return Resources()[0]; }
const Resource& StoredBytes() { return Resources()[1]; }

}  // namespace bitplan
