#include "bitplan/core/consumer_limits.h"

#include "support/catch.h"

namespace bitplan {

TEST_CASE("a width is held where one of the grids is that the quantizer may choose there") {
  const ConsumerLimits limits{.zero = {0, 2, 4}, .half = {1, 3}};
  CHECK(HeldWidths(limits, "auto") == std::vector<int>{0, 1, 2, 3, 4});
  CHECK(HeldWidths(limits, "zero") == std::vector<int>{0, 1, 2, 4});
  CHECK(HeldWidths(limits, "half") == std::vector<int>{0, 1, 3});
  CHECK(HeldWidths({.zero = {5}, .half = {5, 6}}, "auto") == std::vector<int>{5});  // odd halves at 6 bits: not by auto
}

TEST_CASE("what two layers hold together is what each of them holds") {
  const ConsumerLimits one{.zero = {2, 4, 8}, .half = {1}, .negative_scales = false};
  const ConsumerLimits other{.zero = {4, 5, 8}, .half = {}, .float16_scales = true, .activations = false};
  const ConsumerLimits both = BothHold(one, other);
  CHECK(both.zero == std::vector<int>{4, 8});
  CHECK(both.half.empty());
  CHECK_FALSE(both.negative_scales);
  CHECK(both.float16_scales);
  CHECK_FALSE(both.activations);
  CHECK(BothHold(one, ConsumerLimits{}) == one);
}

TEST_CASE("no limits leave hashes of stages as they are, and other limits make other ones") {
  CHECK(LimitsText({}).empty());
  CHECK(LimitsText({.activations = false}).empty());  // fits do not depend on it
  CHECK_FALSE(LimitsText({.negative_scales = false}).empty());
  CHECK(LimitsText({.negative_scales = false}) != LimitsText({.float16_scales = true}));
  CHECK(LimitsText({.zero = {2}}) != LimitsText({.zero = {2, 4}}));
}

}  // namespace bitplan
