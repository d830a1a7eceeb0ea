#include "bitplan/io/latency.h"

#include "bitplan/core/error.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

std::string LatencyComplaint(const std::string& text) {
  try {
    (void)ParseLatencyTable(text, "times.csv");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kData);
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
    return error.what();
  }
  return "nothing was refused";
}

}  // namespace

TEST_CASE("a table of latencies is read, columns in any order, empty widths as float") {
  const auto rows = ParseLatencyTable(
      "# one core\nmicroseconds,layer,kind,weight_bits,activation_bits\n41.5, conv1 ,,8,8\r\n\n120,,conv2d,,float\n",
      "times.csv");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].layer == "conv1");
  CHECK(rows[0].kind.empty());
  CHECK(rows[0].weight_bits == 8);
  CHECK(rows[0].nanoseconds == 41500);
  CHECK(rows[1].kind == "conv2d");
  CHECK(rows[1].weight_bits == 32);
  CHECK(rows[1].activation_bits == 32);
}

TEST_CASE("a bad table of latencies is one line with its place") {
  const std::string head = "layer,kind,weight_bits,activation_bits,microseconds\n";
  CHECK_THAT(LatencyComplaint(head), ContainsSubstring("without a row"));
  CHECK_THAT(LatencyComplaint("layer,kind,weight_bits,activation_bits\n"),
             ContainsSubstring("no column 'microseconds'"));
  CHECK_THAT(LatencyComplaint("layer,kind,weight_bits,activation_bits,microsecond\n"),
             ContainsSubstring("times.csv:1"));
  CHECK_THAT(LatencyComplaint(head + "a,,9,8,1\n"), ContainsSubstring("times.csv:2: weight_bits is '9'"));
  CHECK_THAT(LatencyComplaint(head + "a,,8,8,fast\n"), ContainsSubstring("microseconds is 'fast'"));
  CHECK_THAT(LatencyComplaint(head + "a,,8,8,-1\n"), ContainsSubstring("microseconds is '-1'"));
  CHECK_THAT(LatencyComplaint(head + "a,,8,8\n"), ContainsSubstring("has 4 fields, the first line 5"));
}
