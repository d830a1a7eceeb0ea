// A mean-field Gaussian network that learns, in float or while it is quantized.
//
// Every weight has a mean and the logarithm of a standard deviation; rounding them, or the weights drawn from them,
// passes gradients straight through to both and to the steps of the grids (LSQ, Esser et al. 2020; the logarithmic grid
// of sigma the same way, in log sigma).
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/bayes/activations.h"
#include "bitplan/bayes/stored_network.h"
#include "bitplan/bayes/widths.h"
#include "bitplan/core/options.h"
#include "bitplan/models/network.h"

namespace bitplan {

class VariationalNetwork {
 public:
  // Means from the network's weights. `sigma_ratio`: standard deviations as a share of the root mean square of their
  // layer's weights. The module is cloned.
  VariationalNetwork(const Network& network, double sigma_ratio);
  // In float, from a stored network in float.
  explicit VariationalNetwork(const StoredNetwork& stored);

  // Fits the grids to the present values: steps of means and samples by least squares, levels of sigma by least squares
  // of log sigma. `widths`: one entry per layer. `seed`: of the draws that the grids of the samples are fitted to.
  void Quantize(const std::vector<BayesWidths>& widths, const std::string& sigma_scale, const QuantizerOptions& options,
                std::uint64_t seed);
  // Rounds the inputs of every layer but the first. Steps are fitted by least squares to what the layers read on
  // `images` (normalized, [n, C, H, W]) in a few draws of the weights; those of inputs without a sign begin at
  // `step_factor` times that. Error(kData) that names a layer which none of the images reaches.
  void QuantizeActivations(int bits, const torch::Tensor& images, std::uint64_t seed, double step_factor = 1.0);

  // Means and standard deviations as they are stored, rounded where they are, differentiable: shared by all draws of a
  // step. Puts the steps of the activations into the module.
  struct Rounded {
    std::vector<torch::Tensor> mean, sigma;
    std::vector<UniformGrid> samples;
  };
  [[nodiscard]] Rounded Round();
  // Puts one draw into the module, differentiable; `noise`: one standard normal tensor per layer.
  void SetWeights(const Rounded& rounded, const std::vector<torch::Tensor>& noise);
  // Logits of the weights that were set last.
  [[nodiscard]] torch::Tensor Forward(const torch::Tensor& images);

  // KL(q || prior) in nats, summed over all weights, of the unrounded q. `prior_sigma` 0: the prior N(0, s^2) of every
  // layer has the s that fits q best (type II maximum likelihood), s^2 = mean(mu^2 + sigma^2).
  [[nodiscard]] torch::Tensor Divergence(double prior_sigma) const;

  // Everything that learns: means and log sigmas, steps, and the module's other parameters (biases, batch norms).
  [[nodiscard]] std::vector<torch::Tensor> Parameters() const;
  // `training_mode`: batch norms and dropout as in training; otherwise as when the network is used.
  void SetLearning(bool learning, bool training_mode = true);

  [[nodiscard]] StoredNetwork Store() const;
  [[nodiscard]] const Network& network() const { return network_; }

 private:
  struct Grid {
    UniformGrid base;
    torch::Tensor log_factor;  // of the steps, learned
  };
  struct Learner {
    torch::Tensor mean, log_sigma;
    BayesWidths widths;
    Grid means, samples;
    LevelGrid sigmas;
    torch::Tensor sigma_shift, sigma_log_factor;  // of the grid's low (in steps) and step, learned
  };
  struct Activation {
    ActivationQuantizer quantizer;
    double base = 1.0;
    torch::Tensor log_factor;
  };

  [[nodiscard]] torch::Tensor Mean(const Learner& learner, int output_dim) const;
  [[nodiscard]] torch::Tensor Sigma(const Learner& learner) const;
  [[nodiscard]] static UniformGrid Current(const Grid& grid);
  [[nodiscard]] static LevelGrid CurrentSigmas(const Learner& learner);
  void FindSlots();

  Network network_;
  std::vector<TensorSlot> weight_slots_, step_slots_;
  std::vector<Learner> layers_;
  std::vector<Activation> activations_;
  std::vector<torch::Tensor> others_;  // the module's parameters that are no layer's weight
};

}  // namespace bitplan
