#include "bitplan/report/run_page.h"

#include <filesystem>

#include "bitplan/io/files.h"
#include "io/scratch.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

RunPage TwoLayers() {
  RunPage page;
  page.title = "my-recipe: bits of every layer";
  page.rise_unit = "nats per sample";
  page.curve_allocator = "exact";
  page.plan.model = {"net", "", 4500};
  page.plan.allocator = "exact";
  page.plan.budget = {AverageBits(), 3.0};
  page.plan.layers = {{.name = "conv1", .kind = "conv2d", .shape = {20, 1, 5, 5}, .bits = 8},
                      {.name = "fc<1>", .kind = "linear", .shape = {10, 400}, .bits = 2, .confidence = 0.9},
                      {.name = "head", .kind = "linear", .shape = {2, 10}, .bits = 32}};
  page.plan.achieved.average_bits = 2.667;
  page.plan.achieved.predicted_loss_rise = 0.02;
  page.layers = {{-4.5, 0.005}, {-6.25, 0.015}, {}};
  page.curve = {{1.0, 0.3}, {2.0, 0.05}, {8.0, 0.0}};
  return page;
}

}  // namespace

TEST_CASE("the page of a run names every layer with bits, sigma and predicted rise, and needs nothing else") {
  const Scratch folder;
  const std::string page = RunPageHtml(TwoLayers(), folder / "plots");
  for (const char* text : {"conv1", "fc&lt;1&gt;", "-4.50", "-6.25", "0.005", "0.015", ">float<", "90 %", "2.667,"}) {
    CHECK_THAT(page, ContainsSubstring(text));
  }
  CHECK_THAT(page, !ContainsSubstring("fc<1>"));
  CHECK_THAT(page, !ContainsSubstring("src=") && !ContainsSubstring("<script") && !ContainsSubstring("@import"));
  const std::string data = ReadFile(folder / "plots/curve.dat", "data");
  CHECK_THAT(data, ContainsSubstring("2 0.05\n") && ContainsSubstring("2.667 0.02\n"));
  CHECK_THAT(data, !ContainsSubstring("8 0\n"));  // a rise of nothing has no place on a logarithmic axis
}

TEST_CASE("the wider bar belongs to the layer with more bits") {
  const Scratch folder;
  const std::string page = RunPageHtml(TwoLayers(), folder / "plots");
  CHECK_THAT(page, ContainsSubstring("width:6.00rem\"></span>8<"));
  CHECK_THAT(page, ContainsSubstring("width:1.50rem\"></span>2<"));
}
