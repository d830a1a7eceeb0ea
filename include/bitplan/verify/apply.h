// A plan becomes a network: quantized weights in, batch-norm statistics corrected.
#pragma once

#include <string>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/plan.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "bitplan/posterior/posterior.h"

namespace bitplan {

// Error(kData) when the plan was made for another model: the message says which layers differ (missing, unknown, other
// shape), or that the weights differ.
void CheckPlanFits(const Plan& plan, const Network& network, const std::string& model_hash);

struct AppliedPlan {
  torch::jit::Module module{"empty"};  // a clone of the network with quantized weights
  std::vector<std::string> grids;      // of every layer, order of Network::layers
};

// Writes Q_b(w) into a clone of the network; 16 and 32 bits leave a layer alone. `grids`: of every layer as a plan
// records them, or empty: chosen by options.grid. `posterior` may be null unless the range is "posterior".
[[nodiscard]] AppliedPlan ApplyBits(const Network& network, const std::vector<int>& bits,
                                    const std::vector<std::string>& grids, const QuantizerOptions& options,
                                    const Posterior* posterior);

}  // namespace bitplan
