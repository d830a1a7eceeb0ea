#include "bitplan/core/activation_memory.h"

#include <algorithm>

#include "bitplan/core/random.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

constexpr int kWidths[] = {2, 3, 5, 8, 16, 32};

ActivationTimeline RandomTimeline(RandomStream& stream, std::size_t tensors, std::size_t steps) {
  ActivationTimeline timeline;
  for (std::size_t l = 0; l < tensors; ++l) timeline.tensors.push_back(l);
  for (std::size_t t = 0; t < steps; ++t) {
    ActivationStep step{.where = std::to_string(t), .float_bytes = static_cast<std::int64_t>(stream.Index(60))};
    for (std::size_t l = 0; l < tensors; ++l) {
      if (stream.Index(2) == 0) step.rounded.push_back({l, 1 + static_cast<std::int64_t>(stream.Index(20))});
    }
    timeline.steps.push_back(step);
  }
  return timeline;
}

}  // namespace

TEST_CASE("the peak of activations is the largest step, a tensor at its width, rounded up to whole bytes") {
  const ActivationTimeline timeline{.tensors = {0, 0, 2},
                                    .steps = {{.where = "a", .float_bytes = 100, .rounded = {{0, 10}}},
                                              {.where = "b", .float_bytes = 10, .rounded = {{0, 10}, {2, 31}}}}};
  CHECK(PeakActivationBytes(timeline, {32, 32, 32}) == 10 + 40 + 124);
  CHECK(PeakStep(timeline, {32, 32, 32}).where == "b");
  CHECK(PeakActivationBytes(timeline, {3, 3, 3}) == 100 + 4);  // 30 bits are 4 bytes
  CHECK(PeakStep(timeline, {3, 3, 3}).where == "a");
  CHECK(PeakActivationBytes(timeline, {3, 32, 32}) == 10 + 4 + 124);  // a layer in float has no say
}

TEST_CASE("steps that are left out never hold the peak") {
  std::size_t left_out = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    RandomStream stream(seed, "test/dominated");
    const ActivationTimeline all = RandomTimeline(stream, 3, 8);
    ActivationTimeline few = all;
    few.steps = WithoutDominated(all.steps);
    left_out += all.steps.size() - few.steps.size();
    for (const int a : kWidths) {
      for (const int b : kWidths) {
        for (const int c : kWidths) {
          CAPTURE(seed, a, b, c);
          REQUIRE(PeakActivationBytes(few, {a, b, c}) == PeakActivationBytes(all, {a, b, c}));
        }
      }
    }
  }
  CHECK(left_out > 60);
}

TEST_CASE("of equal steps the first stays") {
  const std::vector<ActivationStep> kept =
      WithoutDominated({{.where = "a", .float_bytes = 8}, {.where = "b", .float_bytes = 8}, {.where = "c"}});
  REQUIRE(kept.size() == 1);
  CHECK(kept.front().where == "a");
}
