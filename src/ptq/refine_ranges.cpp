#include "bitplan/ptq/refine_ranges.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <vector>

#include "bitplan/core/interrupt.h"
#include "ptq/moving_ranges.h"
#include "ptq/taught_images.h"

namespace bitplan {
namespace {

constexpr float kStep = 1.12F;        // of a scale
constexpr int kMostSteps = 3;         // in one direction, of one range in one sweep
constexpr std::int64_t kLooks = 512;  // images that a step is judged by

// Tries every range wider and narrower, one after the other, as long as the divergence falls.
void Sweep(std::vector<MovingRange>& ranges, const TaughtImages& images, ProgressSink& progress) {
  double least = images.Divergence(kLooks);
  for (MovingRange& range : ranges) {
    bool moved = false;
    for (const float factor : {kStep, 1.0F / kStep}) {
      for (int step = 0; step < kMostSteps && !(moved && factor < 1.0F); ++step) {
        ThrowIfInterrupted();
        const torch::Tensor before = range.scale.clone();
        range.scale.mul_(factor);
        const double divergence = images.Divergence(kLooks);
        if (!(divergence < least)) {
          range.scale.copy_(before);
          break;
        }
        least = divergence;
        moved = moved || factor > 1.0F;
      }
    }
    progress.Advance(1);
  }
}

}  // namespace

RefinedRanges RefineRanges(const Network& network, AppliedPlan& applied, int sweeps, const Dataset& images,
                           const Normalizer& normalizer, int batch, std::uint64_t seed, ProgressSink& progress) {
  if (sweeps < 1 || images.size() == 0) return {};
  const torch::NoGradGuard no_grad;
  MovingRanges moving(network, applied);
  TaughtImages taught(network, applied, images, normalizer, batch, "ranges of activations",
                      "set quantizer.range_sweeps: 0", seed);
  RefinedRanges result;
  result.ranges = moving.ranges().size();
  if (result.ranges == 0 || taught.held_out() == 0) return result;
  result.held_out = taught.held_out();
  taught.KeepAnswers(progress);
  result.before = taught.HeldOutDivergence();
  progress.Begin("ranges of activations, refined", sweeps * static_cast<std::int64_t>(result.ranges), "ranges");
  for (int sweep = 0; sweep < sweeps; ++sweep) Sweep(moving.ranges(), taught, progress);
  progress.End("");
  result.after = taught.HeldOutDivergence();
  result.kept = result.after < result.before;
  if (result.kept) moving.Settle();
  return result;
}

}  // namespace bitplan
