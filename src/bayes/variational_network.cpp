#include "bitplan/bayes/variational_network.h"

#include <fmt/format.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/random.h"
#include "bitplan/models/tap.h"
#include "bitplan/quantizers/quantizer.h"

namespace bitplan {
namespace {

constexpr double kLeastSigma = 1e-10;
constexpr double kFirstSpread = 4.0;             // nats of log sigma that the levels of a new network cover
constexpr int kFitDraws = 4;                     // of the weights, for the grids of samples and activations
constexpr std::int64_t kFitActivations = 40000;  // values of every layer that its step is fitted to, at most

// Rounds towards the nearest whole number; the gradient passes as if nothing had been rounded.
torch::Tensor StraightRound(const torch::Tensor& x) { return x + (x.round() - x).detach(); }

UniformGrid FitGrid(const torch::Tensor& values, int output_dim, int bits, const QuantizerOptions& options) {
  QuantizerOptions least_squares = options;
  least_squares.range = "mse";
  const WeightRows rows(values, output_dim, least_squares);
  const QuantizedWeight fit = rows.Fit(bits, options.grid);
  UniformGrid grid{bits, fit.grid == "half" ? 0.5 : 0.0, fit.scales.clone()};
  grid.steps.masked_fill_(grid.steps == 0.0, 1e-8);  // a channel of zeros
  return grid;
}

LevelGrid FitSigmas(const torch::Tensor& sigma, int bits, const std::string& scale) {
  if (bits > 0) {
    LevelGrid grid = FitLevelGrid(sigma, bits, scale);
    if (grid.step > 0.0) return grid;
    // All alike, as before any training: levels around the one value, for training to spread over.
    const double last = (1 << bits) - 1, one = sigma.mean().item<double>();
    const bool log = scale == "log";
    grid.step = log ? std::min(0.7, kFirstSpread / last) : 1.5 * one / last;
    grid.low = log ? std::log(one) - grid.step * last / 2.0 : one / 4.0;
    return grid;
  }
  const double middle = sigma.log().mean(torch::kFloat64).item<double>();
  return {0, scale, scale == "log" ? middle : std::exp(middle), 0.0};
}

}  // namespace

VariationalNetwork::VariationalNetwork(const Network& network, double sigma_ratio) : network_(network) {
  const torch::NoGradGuard no_grad;
  network_.module = CloneModule(network.module);
  std::set<const void*> weights;
  for (const Layer& layer : network_.layers) {
    const torch::Tensor weight = GetTensor(network_.module, layer.parameter);
    weights.insert(weight.data_ptr());
    Learner learner;
    learner.mean = weight.detach().clone();
    const double size = std::max(weight.square().mean().sqrt().item<double>(), 1e-6);
    learner.log_sigma = torch::full_like(learner.mean, std::log(sigma_ratio * size));
    layers_.push_back(std::move(learner));
  }
  for (const torch::Tensor& parameter : network_.module.parameters()) {
    if (!weights.contains(parameter.data_ptr()) && parameter.numel() > 0) others_.push_back(parameter);
  }
  FindSlots();
}

VariationalNetwork::VariationalNetwork(const StoredNetwork& stored) : VariationalNetwork(stored.network, 1.0) {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    layers_[l].mean = stored.layers[l].Mean(network_.layers[l].output_dim).clone();
    layers_[l].log_sigma = stored.layers[l].Sigma().clamp_min(kLeastSigma).log();
  }
}

void VariationalNetwork::Quantize(const std::vector<BayesWidths>& widths, const std::string& sigma_scale,
                                  const QuantizerOptions& options, std::uint64_t seed) {
  const torch::NoGradGuard no_grad;
  if (widths.size() != layers_.size()) throw Error(ErrorKind::kInternal, "one set of widths per layer is needed");
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    Learner& learner = layers_[l];
    const Layer& layer = network_.layers[l];
    learner.widths = widths[l];
    if (widths[l].mean != kFloatBits) {
      learner.means.base = FitGrid(learner.mean, layer.output_dim, widths[l].mean, options);
      learner.means.log_factor = torch::zeros_like(learner.means.base.steps);
    }
    const torch::Tensor sigma = learner.log_sigma.exp();
    if (widths[l].sigma != kFloatBits) {
      learner.sigmas = FitSigmas(sigma, widths[l].sigma, sigma_scale);
      learner.sigma_shift = torch::zeros({});
      learner.sigma_log_factor = torch::zeros({});
    }
    if (widths[l].sample != kFloatBits) {
      std::vector<torch::Tensor> draws;
      const int beside = layer.output_dim == 0 ? 1 : 0;  // more values of every output channel
      for (int t = 0; t < kFitDraws; ++t) {
        draws.push_back(Mean(learner, layer.output_dim) + Sigma(learner) * DrawNoise(layer, l, seed, -1 - t));
      }
      learner.samples.base = FitGrid(torch::cat(draws, beside), layer.output_dim, widths[l].sample, options);
      learner.samples.log_factor = torch::zeros_like(learner.samples.base.steps);
    }
  }
}

void VariationalNetwork::QuantizeActivations(int bits, const torch::Tensor& images, std::uint64_t seed,
                                             double step_factor) {
  const torch::NoGradGuard no_grad;
  std::vector<ActivationSample> inputs(layers_.size());
  for (ActivationSample& sample : inputs) sample.most_values = kFitActivations;
  const Rounded rounded = Round();
  for (int t = 0; t < kFitDraws; ++t) {
    std::vector<torch::Tensor> noise;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      noise.push_back(DrawNoise(network_.layers[l], l, seed, -1 - t));
    }
    SetWeights(rounded, noise);
    const auto keep = [&](std::size_t layer, const torch::Tensor& input) { inputs[layer].Add(input); };
    const Tap tap(network_, network_.module, {keep, nullptr, nullptr});
    (void)Forward(images);
  }
  for (std::size_t l = 1; l < inputs.size(); ++l) {  // inputs of the first are not rounded
    if (inputs[l].values.defined()) continue;
    throw Error(ErrorKind::kData,
                fmt::format("layer {} of {} runs for none of the first {} training images, so the step of its inputs "
                            "cannot be fitted: leave inputs in float with bayes.activation_bits 32, or save the model "
                            "without the layer",
                            network_.layers[l].name, network_.name, images.size(0)));
  }
  std::vector<bool> is_signed;
  for (const ActivationSample& sample : inputs) is_signed.push_back(sample.low < 0.0F);
  std::vector<ActivationQuantizer> quantizers;
  const std::vector<std::string> names = [&] {
    std::vector<std::string> found;
    for (const auto& [name, value] : network_.module.named_parameters()) {
      for (const torch::Tensor& other : others_) {
        if (value.data_ptr() == other.data_ptr()) found.push_back(name);
      }
    }
    return found;
  }();
  for (std::size_t l = 0; l < layers_.size(); ++l) {  // the slots hold a draw; the graph is changed on plain tensors
    SetTensor(network_.module, network_.layers[l].parameter, layers_[l].mean.detach().clone());
  }
  network_ = WithQuantizedActivations(network_, bits, is_signed, quantizers);
  others_.clear();
  for (const std::string& name : names) others_.push_back(GetTensor(network_.module, name));
  activations_.clear();
  for (const ActivationQuantizer& quantizer : quantizers) {
    const double fitted = FitActivation(inputs[quantizer.layer], bits, "mse", "half").scale;
    activations_.push_back({quantizer, quantizer.quantizer.half ? fitted : fitted * step_factor, torch::zeros({})});
  }
  FindSlots();
}

void VariationalNetwork::FindSlots() {
  weight_slots_.clear();
  step_slots_.clear();
  for (const Layer& layer : network_.layers) weight_slots_.emplace_back(network_.module, layer.parameter);
  for (const Activation& activation : activations_)
    step_slots_.emplace_back(network_.module, activation.quantizer.step);
}

UniformGrid VariationalNetwork::Current(const Grid& grid) {
  return {grid.base.bits, grid.base.offset, grid.base.steps * grid.log_factor.exp()};
}

LevelGrid VariationalNetwork::CurrentSigmas(const Learner& learner) {
  LevelGrid grid = learner.sigmas;
  grid.low += grid.step * learner.sigma_shift.item<double>();
  grid.step *= std::exp(learner.sigma_log_factor.item<double>());
  return grid;
}

namespace {

torch::Tensor StraightThrough(const torch::Tensor& values, const UniformGrid& grid, int output_dim) {
  const torch::Tensor steps = SpreadSteps(grid.steps, static_cast<int>(values.dim()), output_dim);
  const int low = -(1 << (grid.bits - 1)), high = -low - 1;
  const torch::Tensor codes = (values / steps - grid.offset).clamp(low, high);
  return (StraightRound(codes) + grid.offset) * steps;
}

}  // namespace

torch::Tensor VariationalNetwork::Mean(const Learner& learner, int output_dim) const {
  if (learner.widths.mean == kFloatBits) return learner.mean;
  return StraightThrough(learner.mean, Current(learner.means), output_dim);
}

torch::Tensor VariationalNetwork::Sigma(const Learner& learner) const {
  if (learner.widths.sigma == kFloatBits) return learner.log_sigma.exp();
  const LevelGrid& grid = learner.sigmas;
  const bool log = grid.scale == "log";
  if (grid.step == 0.0) {
    const torch::Tensor one = torch::zeros_like(learner.log_sigma) + (grid.low + learner.sigma_shift);
    return log ? one.exp() : one.clamp_min(kLeastSigma);
  }
  const torch::Tensor values = log ? learner.log_sigma : learner.log_sigma.exp();
  const torch::Tensor low = grid.low + grid.step * learner.sigma_shift;
  const torch::Tensor step = grid.step * learner.sigma_log_factor.exp();
  const double last = static_cast<double>((1 << grid.bits) - 1);
  const torch::Tensor levels = StraightRound(((values - low) / step).clamp(0.0, last)) * step + low;
  return log ? levels.exp() : levels.clamp_min(kLeastSigma);
}

VariationalNetwork::Rounded VariationalNetwork::Round() {
  Rounded rounded;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Learner& learner = layers_[l];
    rounded.mean.push_back(Mean(learner, network_.layers[l].output_dim));
    rounded.sigma.push_back(Sigma(learner));
    rounded.samples.push_back(learner.widths.sample == kFloatBits ? UniformGrid() : Current(learner.samples));
  }
  for (std::size_t a = 0; a < activations_.size(); ++a) {
    step_slots_[a].Set(activations_[a].base * activations_[a].log_factor.exp());
  }
  return rounded;
}

void VariationalNetwork::SetWeights(const Rounded& rounded, const std::vector<torch::Tensor>& noise) {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    torch::Tensor weight = rounded.mean[l] + rounded.sigma[l] * noise[l];
    if (rounded.samples[l].bits != kFloatBits) {
      weight = StraightThrough(weight, rounded.samples[l], network_.layers[l].output_dim);
    }
    weight_slots_[l].Set(weight);
  }
}

torch::Tensor VariationalNetwork::Forward(const torch::Tensor& images) { return RunForward(network_.module, images); }

torch::Tensor VariationalNetwork::Divergence(double prior_sigma) const {
  torch::Tensor divergence = torch::zeros({});
  for (const Learner& learner : layers_) {
    const torch::Tensor second = learner.mean.square() + (2.0 * learner.log_sigma).exp();
    const torch::Tensor variance =
        prior_sigma > 0.0 ? torch::full({}, prior_sigma * prior_sigma) : second.detach().mean();
    divergence = divergence + (second / (2.0 * variance) - learner.log_sigma + 0.5 * variance.log() - 0.5).sum();
  }
  return divergence;
}

std::vector<torch::Tensor> VariationalNetwork::Parameters() const {
  std::vector<torch::Tensor> parameters = others_;
  for (const Learner& learner : layers_) {
    parameters.push_back(learner.mean);
    parameters.push_back(learner.log_sigma);
    if (learner.widths.mean != kFloatBits) parameters.push_back(learner.means.log_factor);
    if (learner.widths.sample != kFloatBits) parameters.push_back(learner.samples.log_factor);
    if (learner.widths.sigma != kFloatBits) {
      // A linear grid keeps its lowest level, so that no level becomes negative.
      if (learner.sigmas.scale == "log") parameters.push_back(learner.sigma_shift);
      parameters.push_back(learner.sigma_log_factor);
    }
  }
  for (const Activation& activation : activations_) parameters.push_back(activation.log_factor);
  return parameters;
}

void VariationalNetwork::SetLearning(bool learning, bool training_mode) {
  for (const torch::Tensor& parameter : Parameters()) {
    parameter.mutable_grad().reset();
    parameter.set_requires_grad(learning);
  }
  SetTraining(network_.module, learning && training_mode);
}

StoredNetwork VariationalNetwork::Store() const {
  const torch::NoGradGuard no_grad;
  StoredNetwork stored;
  stored.network = network_;
  if (!activations_.empty()) {
    stored.activation_bits = activations_.front().quantizer.quantizer.bits;
    stored.activation_signed = {false};  // the first layer's inputs are not rounded
    for (const Activation& activation : activations_) {
      stored.activation_signed.push_back(activation.quantizer.quantizer.half);
    }
  }
  // The slots may hold a draw with its history; a copy can be made of plain tensors only.
  torch::jit::Module module = network_.module;
  for (const Activation& activation : activations_) {
    SetTensor(module, activation.quantizer.step, (activation.base * activation.log_factor.exp()).detach().clone());
  }
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    SetTensor(module, network_.layers[l].parameter, layers_[l].mean.detach().clone());
  }
  stored.network.module = CloneModule(module);
  SetTraining(stored.network.module, false);
  for (const torch::Tensor& parameter : stored.network.module.parameters()) parameter.set_requires_grad(false);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Learner& learner = layers_[l];
    const int dim = network_.layers[l].output_dim;
    StoredLayer layer;
    if (learner.widths.mean == kFloatBits) {
      layer.mean = learner.mean.detach().clone();
    } else {
      layer.mean_grid = Current(learner.means);
      layer.mean_grid.steps = layer.mean_grid.steps.detach().clone();
      layer.mean_codes = GridCodes(learner.mean.detach(), layer.mean_grid, dim);
    }
    layer.sigma_bits = learner.widths.sigma;
    if (learner.widths.sigma == kFloatBits) {
      layer.sigma = learner.log_sigma.detach().exp();
    } else {
      layer.sigma_grid = learner.sigmas.step == 0.0 ? learner.sigmas : CurrentSigmas(learner);
      if (learner.sigmas.step == 0.0) layer.sigma_grid.low += learner.sigma_shift.item<double>();
      layer.sigma_codes = LevelCodes(learner.log_sigma.detach().exp(), layer.sigma_grid);
    }
    if (learner.widths.sample != kFloatBits) {
      layer.sample_grid = Current(learner.samples);
      layer.sample_grid.steps = layer.sample_grid.steps.detach().clone();
    }
    stored.layers.push_back(std::move(layer));
  }
  return stored;
}

}  // namespace bitplan
