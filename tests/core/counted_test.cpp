#include "bitplan/core/counted.h"

#include "support/catch.h"

namespace bitplan {

TEST_CASE("one thing is counted in the singular, any other number in the plural and grouped") {
  CHECK(Counted(1, "layer") == "1 layer");
  CHECK(Counted(0, "layer") == "0 layers");
  CHECK(Counted(1234567, "weight") == "1,234,567 weights");
  CHECK(Counted(1, "bias", "biases") == "1 bias");
  CHECK(Counted(2, "bias", "biases") == "2 biases");
  CHECK(Quantity(1.0, "bit") == "1 bit");
  CHECK(Quantity(1.25, "bit") == "1.25 bits");
  CHECK(Quantity(100.0 * 0.01, "point") == "1 point");
  CHECK(Grouped(-1234) == "-1,234");
  CHECK(Grouped(999) == "999");
}

}  // namespace bitplan
