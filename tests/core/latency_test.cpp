#include "bitplan/core/latency.h"

#include "bitplan/core/error.h"
#include "bitplan/core/problem.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

const std::vector<LatencyRow> kRows = {
    {.layer = "", .kind = "conv2d", .weight_bits = 8, .activation_bits = 8, .nanoseconds = 800},
    {.layer = "", .kind = "conv2d", .weight_bits = 32, .activation_bits = 32, .nanoseconds = 3200},
    {.layer = "layer?.conv*", .kind = "", .weight_bits = 4, .activation_bits = 8, .nanoseconds = 440},
    {.layer = "layer1.conv1", .kind = "", .weight_bits = 8, .activation_bits = 8, .nanoseconds = 1},
    {.layer = "layer1.conv1", .kind = "", .weight_bits = 8, .activation_bits = 8, .nanoseconds = 2},
    {.layer = "", .kind = "", .weight_bits = 32, .activation_bits = 32, .nanoseconds = 9},
};

std::int64_t Time(const std::string& layer, const std::string& kind, int weights, int activations) {
  const auto entries = LatencyOf(kRows, layer, kind);
  const LatencyEntry* const entry = FindLatency(entries, weights, activations);
  return entry == nullptr ? -1 : entry->nanoseconds;
}

}  // namespace

TEST_CASE("a row by name goes before a row by kind, and that before a row for all") {
  CHECK(Time("layer1.conv1", "conv2d", 4, 8) == 440);
  CHECK(Time("stem", "conv2d", 4, 8) == 800);
  CHECK(Time("fc", "linear", 4, 8) == 9);
  CHECK(Time("layer1.conv1", "conv2d", 32, 32) == 3200);  // no row of its name is as wide
}

TEST_CASE("a width between two rows takes the wider, weights first, and of equal rows the last counts") {
  CHECK(Time("layer1.conv1", "conv2d", 2, 4) == 440);
  CHECK(Time("layer1.conv1", "conv2d", 5, 8) == 2);
  CHECK(Time("stem", "conv2d", 3, 3) == 800);
  CHECK(Time("stem", "conv2d", 3, 16) == 3200);
  const auto nothing = LatencyOf({{.layer = "other", .nanoseconds = 5}}, "fc", "linear");
  CHECK(FindLatency(nothing, 8, 8) == nullptr);
}

TEST_CASE("latency is the sum of the layers, in whole nanoseconds, and a missing row is one line") {
  Unit unit;
  unit.name = "fc";
  unit.weights = 10;
  unit.activation_bits = 8;
  unit.latency = LatencyOf({{.layer = "fc", .weight_bits = 8, .activation_bits = 8, .nanoseconds = 1500}}, "fc", "");
  CHECK(Cost(unit, 5, Latency()) == 1500);
  CHECK(Capacity(10, {Latency(), 1.5}) == 1500);  // a limit is in microseconds
  unit.activation_bits = kFloatBits;
  try {
    (void)Cost(unit, 4, Latency());
    FAIL("a time was made up");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kUsage);
    CHECK_THAT(error.what(), ContainsSubstring("no row covers layer fc with 4-bit weights and float activations"));
  }
}
