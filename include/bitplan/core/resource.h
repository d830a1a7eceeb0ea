// What a plan may spend: a list of resources, each with its cost of a unit at a width.
//
// Those that follow from sizes and widths are the rule; kinds beside them need figures of the network, or of a machine.
// Adding one of the first kind: its cost and its line in src/core/resources.cpp. Recipe keys (allocate.budget.NAME),
// plans, allocators and `bitplan help recipe` follow from the list.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bitplan {

struct Unit;

enum class ResourceKind {
  kCounted,  // a sum over the planned layers that follows from their sizes and widths; never falls with the width
  kTimed,    // a sum over all layers, those in float too, of times that a table states (core/latency.h); may fall
  kPeak,     // no sum: the most that is live at once (core/activation_memory.h); widths of weights do not change it
};

struct Resource {
  const char* name;      // in recipes and plans: "average_bits"
  const char* words;     // in messages: "average bits"
  const char* unit;      // of a budget's value: "bits per weight"
  const char* one_more;  // what the shadow price is the price of: "bit of one weight"
  const char* help;      // one phrase, of the recipe key
  bool per_weight;       // a budget's value is per weight of the planned layers; else it is a total, a whole number
  // Of a unit (not a group) at a width in 0..8, a whole number >= 0. kTimed: at kFloatBits too, and Error(kUsage) for a
  // width that the table lacks; kPeak: 0.
  std::int64_t (*cost)(const Unit& unit, int width);
  ResourceKind kind = ResourceKind::kCounted;
  int scale = 1;  // costs in one unit of a budget's value
};

// In the order of the list.
[[nodiscard]] const std::vector<Resource>& Resources();

// Error(kUsage) with the known names and the nearest one.
[[nodiscard]] const Resource& FindResource(const std::string& name);

// sum(weights * bits) / sum(weights) over the planned layers: the figure that papers quote.
[[nodiscard]] const Resource& AverageBits();
// Packed weights with their scales and the bit-width map.
[[nodiscard]] const Resource& StoredBytes();
// Peak of live activations.
[[nodiscard]] const Resource& ActivationMemory();
// Microseconds by a table.
[[nodiscard]] const Resource& Latency();

}  // namespace bitplan
