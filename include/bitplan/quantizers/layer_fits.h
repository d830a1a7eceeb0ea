// Scales and grids of every layer at every width. A search finds them, which costs far more than rounding with them; so
// they are found once, and tables, plans and comparisons take them from here.
//
//   const LayerFits fits = FitLayers(network, {2, 4, 8}, options, evidence);
//   if (const QuantizedWeight* fit = fits.Find(0, 4, fits.asked)) values = rows.Values(*fit);
#pragma once

#include <filesystem>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/models/network.h"
#include "bitplan/quantizers/quantizer.h"

namespace bitplan {

struct LayerFits {
  LevelChoice asked;        // grid and range that the options asked for
  std::vector<int> widths;  // bits, 0..8, in any order
  // [layers][widths]; a scale takes four bytes, so all of them take far less memory than one quantized network.
  std::vector<std::vector<QuantizedWeight>> fits;

  // What `choice` gives for a layer at `bits`; null where it is not known. A choice that a plan records ("zero",
  // "output") is known where the options led to the same.
  [[nodiscard]] const QuantizedWeight* Find(std::size_t layer, int bits, const LevelChoice& choice) const;
  // The same by what was asked for.
  [[nodiscard]] const QuantizedWeight* Find(std::size_t layer, int bits) const { return Find(layer, bits, asked); }

  // Those of the widths that are not known yet.
  [[nodiscard]] std::vector<int> Missing(const std::vector<int>& wanted) const;
  // Takes in the scales of other widths, found in the same way.
  void Add(LayerFits others);
};

// By options.grid and options.range. `evidence`: of every layer, or null when the ranges look at weights only.
[[nodiscard]] LayerFits FitLayers(const Network& network, const std::vector<int>& widths,
                                  const QuantizerOptions& options, const std::vector<QuantizerEvidence>* evidence);

// The file of a run, a TorchScript archive. Error(kNotFound); Error(kData) when it is no such file.
void SaveLayerFits(const LayerFits& fits, const std::filesystem::path& file);
[[nodiscard]] LayerFits LoadLayerFits(const std::filesystem::path& file);

}  // namespace bitplan
