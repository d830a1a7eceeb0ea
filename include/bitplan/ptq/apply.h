// A plan becomes a network: quantized weights in, batch-norm statistics corrected.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/plan.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "bitplan/quantizers/affine_quantizer.h"
#include "bitplan/quantizers/layer_fits.h"
#include "bitplan/quantizers/quantizer.h"

namespace bitplan {

// The plan with its layers in the network's order, found by name: what is read by place afterwards speaks of the same
// layers. Error(kData) when the plan was made for another model: the message says which layers differ (missing,
// unknown, given twice, other shape), or that the model differs.
[[nodiscard]] Plan FitPlan(Plan plan, const Network& network, const std::string& model_hash);

// Makes a plan for a model one for other weights of the same layers: its widths, grids and ranges stay, layer by name;
// `transferred` says where they came from, and what was measured or proven for the other weights goes. Error(kData) as
// above when a layer is missing or has another kind or shape. Leaves a plan that is for this model as it is.
[[nodiscard]] Plan TransferPlan(Plan plan, const Network& network, const std::string& model_hash);

class TransferredPass;  // src/ptq/transferred_pass.h

struct AppliedPlan {
  torch::jit::Module module{"empty"};  // a clone of the network with quantized weights
  std::vector<LevelChoice> choices;    // of every layer, order of Network::layers
  std::vector<QuantizedWeight> fits;   // the same; of a layer left alone only its place
  // The same: codes and scales as rounding and corrections left them. The layer's weight in `module` is
  // weights[l].Values(), bit for bit; undefined for a layer left alone.
  std::vector<QuantizedTensor> weights;
  // Of the input of every layer (ptq/activations.h); empty where activations stay in float.
  std::vector<AffineQuantizer> activations{};
  // What compensated rounding has already measured for the corrections; none once a weight has changed.
  std::shared_ptr<const TransferredPass> transferred{};

  // Gives a layer of the network other codes and scales, in `module` too.
  void Put(const Network& network, std::size_t layer, QuantizedTensor weight);
};

// Writes Q_b(w) into a clone of the network; 16 and 32 bits leave a layer alone. `choices`: of every layer as a
// plan records them, or empty: by the options. `evidence`: of every layer, or empty when the ranges look at weights
// only. `known`: scales found before, by the same options and evidence; what is not among them is found here.
[[nodiscard]] AppliedPlan ApplyBits(const Network& network, const std::vector<int>& bits,
                                    const std::vector<LevelChoice>& choices, const QuantizerOptions& options,
                                    const std::vector<QuantizerEvidence>& evidence, const LayerFits* known = nullptr);

// Whether `known` has the scales of every layer, so that ApplyBits asks for no evidence.
[[nodiscard]] bool AreKnown(const LayerFits& known, const std::vector<int>& bits,
                            const std::vector<LevelChoice>& choices, const QuantizerOptions& options);

}  // namespace bitplan
