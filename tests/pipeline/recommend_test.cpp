#include "pipeline/recommend.h"

#include "support/catch_torch.h"

using bitplan::RandomStream;
using bitplan::pipeline::ShipCandidate;
using bitplan::pipeline::SmallestAsGoodAsBest;
using bitplan::pipeline::SmallestWithin;

namespace {

constexpr int kResamples = 500;
constexpr auto kShared = bitplan::SeedSamples::kShared;

// A network on 1,000 images: the first `wrong` of them wrong, and an NLL about `nll` that scatters with the image.
struct Measured {
  Measured(std::size_t wrong, double nll) : correct(1000, 1), losses(1000) {
    for (std::size_t i = 0; i < 1000; ++i) {
      correct[i] = i < wrong ? 0 : 1;
      losses[i] = static_cast<float>(nll * (1.0 + 0.5 * static_cast<double>(i % 7) / 6.0));
    }
  }
  [[nodiscard]] ShipCandidate Of(std::int64_t bytes) const { return {bytes, {&correct}, {&losses}}; }
  std::vector<std::uint8_t> correct;
  std::vector<float> losses;
};

// `of` with an NLL of its own scatter: a little better on even images, a little worse on odd ones.
Measured Scattered(Measured of, float by) {
  for (std::size_t i = 0; i < of.losses.size(); ++i) of.losses[i] += (i % 2 == 0 ? by : -by);
  return of;
}

const RandomStream& Stream() {
  static const RandomStream stream(1, "test");
  return stream;
}

}  // namespace

TEST_CASE("of plans that are not told apart the smallest is recommended, never one that is shown to be worse") {
  const Measured best(50, 0.20), tied = Scattered(best, 0.05F), worse_nll(50, 0.30), worse_accuracy = [] {
    Measured network(120, 0.20);
    return Scattered(network, 0.05F);
  }();
  CHECK(SmallestAsGoodAsBest({best.Of(1000), tied.Of(900)}, kShared, kResamples, Stream()) == 1U);
  CHECK(SmallestAsGoodAsBest({best.Of(1000), worse_nll.Of(500)}, kShared, kResamples, Stream()) == 0U);
  CHECK(SmallestAsGoodAsBest({best.Of(1000), worse_accuracy.Of(500)}, kShared, kResamples, Stream()) == 0U);
  CHECK(SmallestAsGoodAsBest({worse_nll.Of(500), worse_accuracy.Of(400), best.Of(900), best.Of(900)}, kShared,
                             kResamples,
                             Stream()) == 2U);  // equal bytes and NLL: the earlier one
  CHECK_FALSE(SmallestAsGoodAsBest({}, kShared, kResamples, Stream()).has_value());
}

TEST_CASE("over all budgets only what is surely within the tolerance is recommended, the smallest first") {
  const Measured reference(50, 0.2), same(50, 0.2), loses_half_a_point(55, 0.2), loses_five_points(100, 0.2);
  const std::vector<ShipCandidate> candidates = {loses_five_points.Of(100), loses_half_a_point.Of(200), same.Of(300)};
  CHECK(SmallestWithin(candidates, {&reference.correct}, kShared, 0.012, kResamples, Stream()) == 1U);
  CHECK(SmallestWithin(candidates, {&reference.correct}, kShared, 0.004, kResamples, Stream()) ==
        2U);  // not surely within it
  CHECK(SmallestWithin(candidates, {&reference.correct}, kShared, 0.10, kResamples, Stream()) == 0U);
  CHECK_FALSE(SmallestWithin({candidates[0]}, {&reference.correct}, kShared, 0.01, kResamples, Stream()).has_value());
}

TEST_CASE(
    "a plan that is better with one calibration seed and worse with the next is no worse, whatever its images say") {
  const Measured best(50, 0.20), good = Scattered(best, 0.05F), bad(90, 0.20);
  const ShipCandidate steady{
      1000, {&best.correct, &best.correct, &best.correct}, {&best.losses, &best.losses, &best.losses}};
  const ShipCandidate fickle{
      900, {&good.correct, &bad.correct, &good.correct}, {&good.losses, &good.losses, &good.losses}};
  const ShipCandidate worse{
      800, {&bad.correct, &bad.correct, &bad.correct}, {&good.losses, &good.losses, &good.losses}};
  CHECK(SmallestAsGoodAsBest({steady, fickle, worse}, kShared, kResamples, Stream()) == 1U);
}
