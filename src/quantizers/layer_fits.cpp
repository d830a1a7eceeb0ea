#include "bitplan/quantizers/layer_fits.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"

namespace bitplan {
namespace {

// Names never change their places: files hold the places.
constexpr std::array kGridNames = {"auto", "zero", "half"};
constexpr std::array kRangeNames = {"auto", "max", "mse", "posterior", "output"};

template <std::size_t count>
std::int64_t PlaceOfName(const std::array<const char*, count>& names, const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) throw Error(ErrorKind::kInternal, "layer fits: '" + name + "' is no grid or range");
  return found - names.begin();
}

std::string ScalesName(std::size_t layer) { return "scales_" + std::to_string(layer); }

}  // namespace

const QuantizedWeight* LayerFits::Find(std::size_t layer, int bits, const LevelChoice& choice) const {
  const auto width = std::find(widths.begin(), widths.end(), bits);
  if (width == widths.end()) return nullptr;
  const QuantizedWeight& fit = fits.at(layer).at(static_cast<std::size_t>(width - widths.begin()));
  return choice == asked || choice == LevelChoice{fit.grid, fit.range} ? &fit : nullptr;
}

std::vector<int> LayerFits::Missing(const std::vector<int>& wanted) const {
  std::vector<int> missing;
  for (const int width : wanted) {
    if (std::find(widths.begin(), widths.end(), width) == widths.end()) missing.push_back(width);
  }
  return missing;
}

void LayerFits::Add(LayerFits others) {
  if (fits.empty()) {
    *this = std::move(others);
    return;
  }
  widths.insert(widths.end(), others.widths.begin(), others.widths.end());
  for (std::size_t l = 0; l < fits.size(); ++l) {
    for (QuantizedWeight& fit : others.fits.at(l)) fits[l].push_back(std::move(fit));
  }
}

LayerFits FitLayers(const Network& network, const std::vector<int>& widths, const QuantizerOptions& options,
                    const std::vector<QuantizerEvidence>* evidence) {
  LayerFits result{{options.grid, options.range}, widths, {}};
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const Layer& layer = network.layers[l];
    const WeightRows rows(GetTensor(network.module, layer.parameter), layer.output_dim, options,
                          evidence == nullptr ? QuantizerEvidence() : evidence->at(l));
    auto& fits = result.fits.emplace_back();
    for (const int width : widths) {
      ThrowIfInterrupted();
      fits.push_back(rows.Fit(width, options.grid));
    }
  }
  return result;
}

void SaveLayerFits(const LayerFits& fits, const std::filesystem::path& file) {
  torch::jit::Module module("layer_fits");
  const auto layers = static_cast<std::int64_t>(fits.fits.size());
  const auto widths = static_cast<std::int64_t>(fits.widths.size());
  module.register_buffer(
      "asked", torch::tensor({PlaceOfName(kGridNames, fits.asked.grid), PlaceOfName(kRangeNames, fits.asked.range)}));
  const torch::Tensor bits = torch::empty({widths}, torch::kInt64);
  const torch::Tensor choices = torch::empty({layers, widths, 2}, torch::kInt64);
  const torch::Tensor errors = torch::empty({layers, widths}, torch::kFloat64);
  auto* choice = choices.data_ptr<std::int64_t>();
  auto* error = errors.data_ptr<double>();
  std::copy(fits.widths.begin(), fits.widths.end(), bits.data_ptr<std::int64_t>());
  for (std::size_t l = 0; l < fits.fits.size(); ++l) {
    std::vector<torch::Tensor> scales;
    for (const QuantizedWeight& fit : fits.fits[l]) {
      *choice++ = PlaceOfName(kGridNames, fit.grid);
      *choice++ = PlaceOfName(kRangeNames, fit.range);
      *error++ = fit.error;
      scales.push_back(fit.scales);
    }
    module.register_buffer(ScalesName(l), torch::stack(scales));
  }
  module.register_buffer("widths", bits);
  module.register_buffer("choices", choices);
  module.register_buffer("errors", errors.view(torch::kInt64));  // as bits: a module is loaded in float32
  SaveModule(module, file);
}

LayerFits LoadLayerFits(const std::filesystem::path& file) {
  const torch::jit::Module module = LoadModule(file);
  for (const char* name : {"asked", "widths", "choices", "errors"}) {
    if (!module.hasattr(name)) {
      throw Error(ErrorKind::kData, file.string() + " holds no scales of layers; remove it and run again");
    }
  }
  const torch::Tensor asked = GetTensor(module, "asked"), bits = GetTensor(module, "widths");
  const torch::Tensor choices = GetTensor(module, "choices");
  const torch::Tensor errors = GetTensor(module, "errors").view(torch::kFloat64);
  const auto* const name = asked.data_ptr<std::int64_t>();
  const auto* choice = choices.data_ptr<std::int64_t>();
  const auto* error = errors.data_ptr<double>();
  const auto grid = [](std::int64_t place) { return kGridNames.at(static_cast<std::size_t>(place)); };
  const auto range = [](std::int64_t place) { return kRangeNames.at(static_cast<std::size_t>(place)); };
  LayerFits result{{grid(name[0]), range(name[1])}, {}, {}};
  for (std::int64_t k = 0; k < bits.numel(); ++k) result.widths.push_back(bits[k].item<int>());
  for (std::int64_t l = 0; l < choices.size(0); ++l) {
    const torch::Tensor scales = GetTensor(module, ScalesName(static_cast<std::size_t>(l)));
    auto& fits = result.fits.emplace_back();
    for (std::int64_t k = 0; k < bits.numel(); ++k, choice += 2, ++error) {
      fits.push_back(
          {result.widths[static_cast<std::size_t>(k)], grid(choice[0]), range(choice[1]), scales[k].clone(), *error});
    }
  }
  return result;
}

}  // namespace bitplan
