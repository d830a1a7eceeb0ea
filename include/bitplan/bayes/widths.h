// Bit widths of one quantized Bayesian network, and the schemes that say which of them count.
#pragma once

#include <string>
#include <vector>

#include "bitplan/core/problem.h"

namespace bitplan {

// Of one layer. `sigma` may be 0: one standard deviation for all weights of the layer.
struct BayesWidths {
  int mean = kFloatBits;    // 1..8 or 32
  int sigma = kFloatBits;   // 0..8 or 32
  int sample = kFloatBits;  // 1..8 or 32: the drawn weight itself

  bool operator==(const BayesWidths& other) const = default;
};

// The three levels at which a Bayesian network can be quantized (Borras et al. 2025, arXiv 2512.10602).
struct BayesScheme {
  const char* name;
  const char* description;
  bool parameters;  // mean and sigma are rounded
  bool samples;     // drawn weights are rounded
};

// vpq, spq, jq.
[[nodiscard]] const std::vector<BayesScheme>& BayesSchemes();
[[nodiscard]] const BayesScheme& FindBayesScheme(const std::string& name);  // Error(kUsage)

}  // namespace bitplan
