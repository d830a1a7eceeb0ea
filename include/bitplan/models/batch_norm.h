// Statistics of what a batch norm sees, and how a change of them is carried over to the trained ones.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/models/network.h"

namespace bitplan {

struct ChannelStatistics {
  torch::Tensor mean, var;  // float32 [channels]; the variance is the biased one, as evaluation uses it
};

// Over all images and positions of an input [n, C, ...].
[[nodiscard]] ChannelStatistics StatisticsOf(const torch::Tensor& input);

// Moves the change from `reference` (float network) to `now` (quantized network, the same images) into `trained`:
//   var  <- var * var_now / var_ref,      mean <- mean_now + (mean - mean_ref) * sqrt(var_now / var_ref):
// what the trained statistics differ from those of these images stays, in units of the channel's deviation. A scale and
// a shift of the channel are undone exactly, and a channel that has become constant puts out its batch norm's bias. A
// channel that was constant before, or whose variance was no normal float32, keeps it and moves its mean along.
[[nodiscard]] ChannelStatistics Transferred(const ChannelStatistics& trained, const ChannelStatistics& now,
                                            const ChannelStatistics& reference);

// Moves the statistics of batch norms along while a quantized network runs, as the correction `transfer` will: of every
// batch norm in order, in the same pass. Begin sees the images in the float network; then the handler goes into a tap
// on the quantized one. A batch norm that no image reaches in either keeps the trained statistics.
class BatchNormTransfer {
 public:
  // `quantized`: a clone of network.module; both must outlive it.
  BatchNormTransfer(const Network& network, const torch::jit::Module& quantized);

  // Takes the statistics of the float network in one pass over `images`, float32 normalized [n, ...].
  void Begin(const torch::Tensor& images);
  // The same for who has them already: of every batch norm, undefined for one that no image reaches.
  void Follow(std::vector<ChannelStatistics> reference) { reference_ = std::move(reference); }
  // The same for who runs the float network himself: a handler for TapHandlers::on_batch_norm_input.
  [[nodiscard]] std::function<void(std::size_t index, const torch::Tensor& input)> FloatHandler();
  [[nodiscard]] std::function<void(std::size_t index, const torch::Tensor& input)> Handler();
  // Puts the trained statistics back.
  void Restore();

 private:
  void Write(std::size_t index, const ChannelStatistics& statistics);

  const Network& network_;
  torch::jit::Module quantized_;
  std::vector<ChannelStatistics> trained_, reference_;
};

// From here on the gradient of `output`, what a batch norm in evaluation mode made of `input`, counts that its
// statistics change with its input. LibTorch's backward pass takes running statistics for constants, gamma / sigma * g.
// What the statistics add is a projection of g, per channel g - mean(g) - x^ mean(g x^), x^ = (x - mean) / sqrt(var +
// eps): to first order it is the same whether the statistics are those of the minibatch or are carried over from it
// (Transferred). `statistics`: of `input`; nothing happens where `output` records no gradient.
void LetStatisticsFollow(const torch::Tensor& input, const torch::Tensor& output, const ChannelStatistics& statistics,
                         double eps);

// Whether the outputs of a layer go into a batch norm of the network as they are: [layers]. Finds out by one pass.
[[nodiscard]] std::vector<bool> FeedsBatchNorm(const Network& network);

// The layers whose mean output error the corrections that options.centring counts on take away, so that what is left of
// an error is its covariance: a batch norm behind the layer or, without one, a bias that can be fitted. [layers]
[[nodiscard]] std::vector<bool> CentredLayers(const Network& network, const QuantizerOptions& options);

}  // namespace bitplan
