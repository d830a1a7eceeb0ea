#include "bitplan/sensitivity/network_oracle.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/models/batch_norm.h"
#include "bitplan/models/tap.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "sensitivity/compensated_layers.h"
#include "sensitivity/units.h"

namespace bitplan {
namespace {

Network CloneNetwork(const Network& network) {
  Network clone = network;
  clone.module = CloneModule(network.module);
  return clone;
}

class NetworkOracle : public LikelihoodOracle {
 public:
  NetworkOracle(const SensitivityInputs& inputs, int batch)
      : inputs_(inputs),
        batch_(batch),
        network_(CloneNetwork(inputs.network)),
        stream_(inputs.seed, "sensitivity/oracle"),
        scope_(network_) {
    QuantizedLayers quantized = FitAllWidths(inputs);
    const torch::NoGradGuard no_grad;
    const bool compensated = inputs.quantizer.rounding == "compensated" && inputs.codes == nullptr;
    const LayerCodes codes = compensated ? CompensateAlone(inputs, quantized, SilentSink()) : LayerCodes();
    if (compensated) quantized.codes = &codes;
    for (std::size_t l = 0; l < network_.layers.size(); ++l) {
      names_.push_back(network_.layers[l].name);
      original_.push_back(scope_.weights()[l].detach().clone());
      auto& values = values_.emplace_back();
      for (std::size_t k = 0; k < inputs.widths.size(); ++k) values.push_back(quantized.Values(l, k));
    }
    NextBatch();
  }

  [[nodiscard]] const std::vector<std::string>& units() const override { return names_; }
  [[nodiscard]] const std::vector<int>& widths() const override { return inputs_.widths; }

  void NextBatch() override {
    const std::int64_t size = inputs_.train.size();
    if (next_ + batch_ > static_cast<std::int64_t>(order_.size())) {
      order_ = stream_.Permutation(size);
      next_ = 0;
    }
    const std::int64_t end = std::min(next_ + batch_, size);
    const torch::Tensor rows = torch::tensor(std::vector<std::int64_t>(order_.begin() + next_, order_.begin() + end));
    rows_ = rows;
    images_ = inputs_.normalizer.Apply(inputs_.train.images.index_select(0, rows));
    labels_ = inputs_.train.labels.index_select(0, rows);
    next_ = end;
  }

  [[nodiscard]] double Loss(const std::vector<int>& columns) override {
    const torch::NoGradGuard no_grad;
    for (std::size_t l = 0; l < columns.size(); ++l) {
      const bool in_float = columns[l] == kFloatColumn;
      Slot(l).copy_(in_float ? original_[l] : values_[l][static_cast<std::size_t>(columns[l])]);
    }
    return Forward().item<double>();
  }

  [[nodiscard]] double LossAndGradient(const std::vector<std::vector<double>>& mixture,
                                       std::vector<std::vector<double>>& gradient) override {
    {
      const torch::NoGradGuard no_grad;
      for (std::size_t l = 0; l < mixture.size(); ++l) {
        torch::Tensor slot = Slot(l);
        if (mixture[l].empty()) {
          slot.copy_(original_[l]);
          continue;
        }
        slot.zero_();
        for (std::size_t k = 0; k < mixture[l].size(); ++k) {
          if (mixture[l][k] != 0.0) slot.add_(values_[l][k], mixture[l][k]);
        }
      }
    }
    const torch::Tensor loss = Forward();
    const auto by_weight = GradientsOf(loss, scope_.weights());
    const torch::NoGradGuard no_grad;
    gradient.assign(mixture.size(), {});
    for (std::size_t l = 0; l < mixture.size(); ++l) {
      const torch::Tensor flat = by_weight[l].reshape(-1);
      for (std::size_t k = 0; k < mixture[l].size(); ++k) {
        gradient[l].push_back(torch::dot(flat, values_[l][k].reshape(-1)).item<double>());
      }
    }
    return loss.item<double>();
  }

 private:
  [[nodiscard]] torch::Tensor Slot(std::size_t layer) const { return scope_.weights()[layer]; }

  // Mean negative log-likelihood of the minibatch.
  torch::Tensor Forward() {
    ThrowIfInterrupted();
    TapHandlers handlers;
    ChannelStatistics statistics;  // of the batch norm that runs
    if (CentringOf(inputs_.quantizer).batch_norm) {
      handlers.on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
        const torch::NoGradGuard no_grad;
        statistics = {};
        if (input.numel() == 0) return;  // no image of the minibatch reaches it
        statistics = StatisticsOf(input);
        GetTensor(network_.module, network_.batch_norms[index].running_mean).copy_(statistics.mean);
        GetTensor(network_.module, network_.batch_norms[index].running_var).copy_(statistics.var);
      };
      handlers.on_batch_norm_output = [&](std::size_t, const torch::Tensor& input, const torch::Tensor& output,
                                          double eps) {
        if (statistics.mean.defined()) LetStatisticsFollow(input, output, statistics, eps);
      };
    }
    const Tap tap(network_, network_.module, std::move(handlers));
    const torch::Tensor logits = RunForward(network_.module, images_);
    const torch::Tensor loss = inputs_.train.Task().Loss(logits, labels_);
    if (!AreFinite({loss})) {
      RefuseLoss(inputs_.network.module, inputs_.train, rows_, inputs_.normalizer);
      throw Error(ErrorKind::kData, "the loss of " + inputs_.train.ImageName(rows_[0].item<std::int64_t>()) +
                                        " and the images that ran with it is not finite once layers are quantized; "
                                        "leave the smallest widths out of allocate.bits");
    }
    return loss;
  }

  const SensitivityInputs& inputs_;
  std::int64_t batch_;
  Network network_;
  RandomStream stream_;
  GradientScope scope_;
  std::vector<std::string> names_;
  std::vector<torch::Tensor> original_;             // [layers]
  std::vector<std::vector<torch::Tensor>> values_;  // [layers][widths]
  std::vector<std::int64_t> order_;
  std::int64_t next_ = 0;
  torch::Tensor rows_, images_, labels_;
};

}  // namespace

std::unique_ptr<LikelihoodOracle> MakeNetworkOracle(const SensitivityInputs& inputs, int batch) {
  return std::make_unique<NetworkOracle>(inputs, batch);
}

}  // namespace bitplan
