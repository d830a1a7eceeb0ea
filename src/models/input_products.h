// Sums of products of columns, such as the second moments of a layer's inputs, taken part by part.
#pragma once

#include <torch/types.h>

#include <vector>

#include "bitplan/models/network.h"

namespace bitplan {

// `positions` (int64) of a layer in parts whose gathered inputs stay in the cache, few enough that adding up their
// products costs little beside computing them.
[[nodiscard]] std::vector<torch::Tensor> GatherParts(const Layer& layer, const torch::Tensor& positions);

// Adds the products of `left` [groups, positions, n] and `right` [groups, positions, m] over the positions to `sum`,
// float32 [groups, n, m]; makes it where it is undefined.
void AddProducts(torch::Tensor& sum, const torch::Tensor& left, const torch::Tensor& right);

// As AddProducts of `columns` with themselves, but only the upper triangle and a little more: half the work.
// MirrorUpper fills in the rest.
void AddUpperProducts(torch::Tensor& sum, const torch::Tensor& columns);
void MirrorUpper(torch::Tensor& sum);

}  // namespace bitplan
