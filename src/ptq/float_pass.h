// The pass behind FloatSide: positions drawn for the moments of every layer, the outputs there, statistics of batch
// norms, and the outputs that can be fitted to.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "bitplan/models/batch_norm.h"
#include "bitplan/models/image_rows.h"
#include "bitplan/models/joins.h"
#include "bitplan/models/network.h"
#include "bitplan/ptq/float_side.h"
#include "ptq/output_fit.h"

namespace bitplan {

// Where a layer's moments are taken, and what the float network has there.
struct LayerSample {
  torch::Tensor positions;  // int64 [positions], into the rows of the images
  torch::Tensor input;      // the rows of these images that the float layer sees; undefined once outputs are there
  torch::Tensor outputs;    // of the float layer without its bias, [groups, positions, channels per group]
  torch::Tensor other;      // what the float network adds to these outputs, [positions, channels], or undefined
  std::vector<std::int64_t> sizes;  // of the rows
};

// Positions for the moments of a layer of n weights per output channel.
[[nodiscard]] std::int64_t WantedPositions(const Layer& layer);
// [positions, channels] as [groups, positions, channels per group].
[[nodiscard]] torch::Tensor ByGroup(const Layer& layer, const torch::Tensor& outputs);
// Of the float layer without its bias. `inputs`: [groups, positions, n].
[[nodiscard]] torch::Tensor FloatOutputs(const Network& network, const Layer& layer, const torch::Tensor& inputs);

class FloatSide::Pass {
 public:
  Pass(const Network& network, torch::Tensor images, bool several);

  [[nodiscard]] const torch::Tensor& images() const { return images_; }
  [[nodiscard]] const ImageRows& image_rows() const { return *image_rows_; }              // after Prepare
  [[nodiscard]] const std::vector<std::optional<Join>>& joins() const { return joins_; }  // [layers]; the same
  // Images that the codes are fitted to; the others choose among ways of rounding.
  [[nodiscard]] std::int64_t kept() const { return kept_; }

  // Runs the float network, unless what is wanted is there. `sampled`: layers that are rounded with compensation;
  // `fitted`: layers whose outputs may be fitted. Both [layers]; empty for none.
  void Prepare(const std::vector<bool>& sampled, const std::vector<bool>& fitted);

  // Of the last Prepare. Samples on the images that codes are fitted to and, where there are such, on the others; empty
  // for a layer that no sample was asked of. The second call finds nothing unless several plans ask.
  [[nodiscard]] std::vector<LayerSample> TakeSamples(std::size_t layer);
  [[nodiscard]] const std::vector<ChannelStatistics>& batch_norms() const { return batch_norms_; }
  // Of the batch norm between a layer and the sum it goes into; undefined where there is none.
  [[nodiscard]] const torch::Tensor& slopes(std::size_t layer) const { return slopes_[layer]; }
  [[nodiscard]] const OutputReference& outputs() const { return outputs_; }
  // As drawing the samples left it: every plan draws the same positions.
  [[nodiscard]] at::Generator generator() const { return generator_.clone(); }

  // What is added to the layer's outputs at these positions of the images begin .. end, [positions, channels];
  // undefined where nothing is, or cannot be known. `other`: the other term of its sum; `rows`: the layer's input on
  // these images.
  [[nodiscard]] torch::Tensor OtherTerm(std::size_t index, const torch::Tensor& other, const torch::Tensor& rows,
                                        std::int64_t begin, std::int64_t end, const torch::Tensor& positions) const;

 private:
  void Run(const std::vector<bool>& sampled, const std::vector<bool>& fitted);
  [[nodiscard]] LayerSample Drawn(std::size_t index, const torch::Tensor& input, const torch::Tensor& other,
                                  std::int64_t begin, std::int64_t end);
  void KeepOutputs(std::size_t index, const torch::Tensor& output, std::int64_t begin, std::int64_t end,
                   LayerSample& sample) const;
  [[nodiscard]] torch::Tensor OwnOutputs(std::size_t index, const torch::Tensor& output, std::int64_t begin,
                                         std::int64_t end, const LayerSample& sample) const;

  const Network& network_;
  torch::Tensor images_;
  bool several_;
  std::int64_t kept_;
  std::optional<ImageRows> image_rows_;
  std::vector<std::optional<Join>> joins_;
  std::vector<bool> sampled_, fitted_;  // that the last pass was made for
  bool ran_ = false;
  std::vector<std::vector<LayerSample>> samples_;
  std::vector<torch::Tensor> slopes_;
  std::vector<ChannelStatistics> batch_norms_;
  OutputReference outputs_;
  at::Generator generator_;
};

}  // namespace bitplan
