// The images that a pass of learning looks at: most teach, the last eighth say whether it helped. What is looked at is
// the divergence of a quantized network's predictions from those of the float one; no label is read but which positions
// count.
#pragma once

#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "bitplan/core/progress.h"
#include "bitplan/core/random.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "bitplan/ptq/apply.h"

namespace bitplan {

class TaughtImages {
 public:
  // `what` and `advice` go into messages: who learns, and what to set where that fails. Everything must outlive it.
  TaughtImages(const Network& network, const AppliedPlan& applied, const Dataset& images, const Normalizer& normalizer,
               int batch, std::string what, std::string advice, std::uint64_t seed);

  [[nodiscard]] std::int64_t held_out() const { return held_out_; }
  // Runs the float network, for all images where its answers are few enough to be kept.
  void KeepAnswers(ProgressSink& progress);
  // The mean divergence over the images that do not teach, nats. Error(kData) when it is not finite.
  [[nodiscard]] double HeldOutDivergence() const { return Mean(images_.size() - held_out_, images_.size()); }
  // The same over the first `count` of those that do.
  [[nodiscard]] double Divergence(std::int64_t count) const {
    return Mean(0, std::min(count, images_.size() - held_out_));
  }
  // Gradients of the mean divergence over the next minibatch go to all leaves that record them. Error(kData) when it is
  // not finite, or no gradient goes through the network.
  void Backward();

 private:
  // Over images first .. last.
  [[nodiscard]] double Mean(std::int64_t first, std::int64_t last) const;
  [[nodiscard]] torch::Tensor Inputs(const torch::Tensor& rows) const;
  [[nodiscard]] torch::Tensor Answers(const torch::Tensor& rows, const torch::Tensor& inputs) const;
  [[nodiscard]] torch::Tensor Divergences(const torch::Tensor& rows) const;
  [[nodiscard]] torch::Tensor NextRows();
  [[noreturn]] void Refuse(const std::string& why) const;

  const Network& network_;
  const AppliedPlan& applied_;
  const Dataset& images_;
  const Normalizer& normalizer_;
  std::int64_t batch_, held_out_, at_;
  std::string what_, advice_;
  RandomStream stream_;
  torch::Tensor order_;
  torch::Tensor answers_;  // of the float network to all images, or undefined
};

}  // namespace bitplan
