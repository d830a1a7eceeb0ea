// The likelihoods, one file each.
#pragma once

#include <memory>

#include "bitplan/likelihoods/likelihood.h"

namespace bitplan {

[[nodiscard]] std::unique_ptr<Likelihood> MakeClassification();
[[nodiscard]] std::unique_ptr<Likelihood> MakeSegmentation();
[[nodiscard]] std::unique_ptr<Likelihood> MakeTokens();
[[nodiscard]] std::unique_ptr<Likelihood> MakeRegression();
[[nodiscard]] std::unique_ptr<Likelihood> MakeMultiLabel();

}  // namespace bitplan
