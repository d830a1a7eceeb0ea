#include "bitplan/core/problem.h"

#include <cmath>
#include <functional>
#include <limits>

#include "bitplan/core/error.h"
#include "bitplan/core/plan.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

Unit MakeUnit(const std::string& name, std::int64_t weights, std::int64_t scales, std::int64_t macs) {
  Unit unit;
  unit.name = name;
  unit.weights = weights;
  unit.scales = scales;
  unit.macs = macs;
  return unit;
}

AllocationProblem TwoLayers() {
  AllocationProblem problem;
  problem.units = {MakeUnit("conv1", 500, 20, 288000), MakeUnit("fc1", 4001, 10, 4001)};
  problem.widths = {0, 1, 3, 8};
  problem.loss_rise = {{2.0, 0.5, 0.01, 0.0}, {1.0, 0.1, 0.001, 0.0}};
  return problem;
}

std::string Complaint(const std::function<void(AllocationProblem&)>& spoil) {
  AllocationProblem problem = TwoLayers();
  spoil(problem);
  try {
    problem.Validate();
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kInternal);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a consistent problem passes its own check") {
  CHECK_NOTHROW(TwoLayers().Validate());
  CHECK(TwoLayers().total_weights() == 4501);
}

TEST_CASE("an inconsistent problem names the field that is wrong") {
  using P = AllocationProblem;
  CHECK_THAT(Complaint([](P& p) { p.units.clear(); }), ContainsSubstring("units is empty"));
  CHECK_THAT(Complaint([](P& p) { p.widths.clear(); }), ContainsSubstring("widths is empty"));
  CHECK_THAT(Complaint([](P& p) { p.widths[3] = 9; }), ContainsSubstring("widths[3] is 9"));
  CHECK_THAT(Complaint([](P& p) { p.widths[2] = 1; }), ContainsSubstring("must ascend"));
  CHECK_THAT(Complaint([](P& p) { p.loss_rise.pop_back(); }), ContainsSubstring("1 row for 2 units"));
  CHECK_THAT(Complaint([](P& p) { p.loss_rise[1].pop_back(); }), ContainsSubstring("loss_rise[1] (fc1) has 3 entries"));
  CHECK_THAT(Complaint([](P& p) { p.loss_rise[0][2] = -1e-9; }), ContainsSubstring("loss_rise[0] (conv1) at width 3"));
  CHECK_THAT(Complaint([](P& p) { p.loss_rise[0][2] = std::nan(""); }), ContainsSubstring("must be finite"));
  CHECK_THAT(Complaint([](P& p) { p.units[0].weights = 0; }), ContainsSubstring("units[0] (conv1).weights is 0"));
  CHECK_THAT(Complaint([](P& p) { p.units[1].scales = -1; }), ContainsSubstring("(fc1).scales is -1"));
  CHECK_THAT(Complaint([](P& p) { p.units[1].macs = -1; }), ContainsSubstring("(fc1).macs is -1"));
  CHECK_THAT(Complaint([](P& p) { p.units[1].coherence = {1.0}; }), ContainsSubstring("(fc1).coherence has 1 entry"));
  CHECK_THAT(Complaint([](P& p) {
               p.units[1].coherence = {1.0, 0.0, 1.0, 1.0};
             }),
             ContainsSubstring("(fc1).coherence"));
  CHECK_THAT(Complaint([](P& p) { p.units[1].score_percentiles = {1.0}; }), ContainsSubstring("1 entry, not 101"));
  CHECK_THAT(Complaint([](P& p) {
               p.units[1].log_sigma_percentiles.assign(kPercentiles, 0.0);
               p.units[1].log_sigma_percentiles[7] = 1.0;
             }),
             ContainsSubstring("(fc1).log_sigma_percentiles does not ascend"));
}

TEST_CASE("stored bits are whole payload bytes, one float per scale and one byte per unit") {
  const Unit unit = MakeUnit("fc1", 4001, 10, 4001);
  CHECK(StoredBits(unit, 3) == 1501 * 8 + 10 * 32 + 8);  // 12,003 bits need 1,501 bytes
  CHECK(StoredBits(unit, 8) == 4001 * 8 + 10 * 32 + 8);
}

TEST_CASE("a unit that is pruned or left in float stores no scales") {
  CHECK(StoredBits(TwoLayers().units[1], 0) == 8);
  CHECK(StoredBits(TwoLayers().units[1], 32) == 4001 * 32 + 8);
}

TEST_CASE("cost is counted in the budget's own measure") {
  const Unit unit = TwoLayers().units[1];
  CHECK(Cost(unit, 3, AverageBits()) == 12003);
  CHECK(Cost(unit, 3, StoredBytes()) == 1501 + 40 + 1);
  CHECK(Cost(TwoLayers().units[0], 3, FindResource("bops")) == 3 * 32 * 288000);  // its weights are 500
  CHECK(LimitName({AverageBits(), 3.0}) == "average_bits");
  CHECK(LimitName({StoredBytes(), 100.0}) == "bytes");
}

TEST_CASE("a budget holds its limits in the order of the resources, each once") {
  Budget budget;
  CHECK(BudgetText(budget) == "average_bits 3");
  budget.Set(FindResource("bops"), 4e6);
  budget.Set(StoredBytes(), 100.0);
  budget.Set(AverageBits(), 2.5);
  CHECK(BudgetText(budget) == "average_bits 2.5, bytes 100, bops 4e+06");
  CHECK(Capacities(TwoLayers(), budget) ==
        std::vector<std::int64_t>{static_cast<std::int64_t>(2.5 * 4501), 100, 4000000});
}

TEST_CASE("average bits of a comparison take the place of a single limit, or stand beside several") {
  CHECK(BudgetText(Budget(StoredBytes(), 100.0).WithAverageBits(2.0)) == "average_bits 2");
  Budget several(StoredBytes(), 100.0);
  several.Set(FindResource("bops"), 9.0);
  CHECK(BudgetText(several.WithAverageBits(2.0)) == "average_bits 2, bytes 100, bops 9");
  several.Set(AverageBits(), 4.0);
  CHECK(BudgetText(several.WithAverageBits(2.0)) == "average_bits 2, bytes 100, bops 9");
}

TEST_CASE("the scale of costs is what one bit more for every weight costs") {
  const AllocationProblem problem = TwoLayers();
  CHECK(CostOfOneBit(problem, AverageBits()) == static_cast<double>(problem.total_weights()));
  CHECK(std::abs(CostOfOneBit(problem, StoredBytes()) - static_cast<double>(problem.total_weights()) / 8.0) < 1.0);
}

TEST_CASE("the capacity is the whole number of bits or bytes within the budget") {
  const AllocationProblem problem = TwoLayers();
  CHECK(Capacity(problem, {AverageBits(), 3.0}) == 13503);
  CHECK(Capacity(problem, {AverageBits(), 1.25}) == 5626);  // 5626.25
  CHECK(Capacity(problem, {StoredBytes(), 2000.9}) == 2000);
}

TEST_CASE("rounding of doubles does not take the last bit of a budget") {
  AllocationProblem problem = TwoLayers();
  problem.units[0].weights = 60;
  problem.units[1].weights = 40;
  REQUIRE(4.35 * 100 < 435.0);
  CHECK(Capacity(problem, {AverageBits(), 4.35}) == 435);
}

TEST_CASE("a budget that is negative or not a number is refused") {
  for (const double value : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    CHECK_THROWS_AS(Capacity(TwoLayers(), {StoredBytes(), value}), Error);
  }
}

TEST_CASE("the weights of a plan's layer follow from its shape") {
  PlanLayer layer;
  layer.shape = {20, 1, 5, 5};
  CHECK(layer.weights() == 500);
  layer.shape = {500, 800};
  CHECK(layer.weights() == 400000);
}
