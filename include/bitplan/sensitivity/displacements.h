// How far every layer and width alone moves the logits, and what that says about quantizing several at once.
//
// Loss rises of single layers do not add: two errors may point the same way or cancel, and the loss is not linear in
// either. Logits add far better. With z the float logits of an image and d_u(b) their displacement when layer u alone
// is quantized to b bits, the prediction for a plan is that of the network with logits
//   z + sum_u d_u(b_u),
// and its loss rise the divergence of those predictions from the float ones. It needs layers x widths forward passes
// once, and a plan then costs n x classes x layers additions. Rank correlations with measured plans: docs/method.md.
#pragma once

#include <filesystem>

#include "bitplan/core/likelihood_oracle.h"
#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

// Of classification; of other tasks, which have many outputs for every image, nothing is kept.
struct Displacements {
  torch::Tensor logits;        // float32 [n, classes], of the float network
  torch::Tensor displacement;  // float32 [layers, widths, n, classes]

  // Mean KL(float || predicted) of a plan, nats per sample; `columns`: one index into the widths per layer.
  [[nodiscard]] double Divergence(const std::vector<int>& columns) const;
};

// On `inputs.options.samples` images. Batch norms are corrected in every pass when
// inputs.quantizer.centring counts on it.
[[nodiscard]] Displacements MeasureDisplacements(const SensitivityInputs& inputs, ProgressSink& progress);

// The table of a metric: every layer and width alone.
[[nodiscard]] std::vector<std::vector<double>> DivergenceTable(const Displacements& displacements);

// The file of a run: a TorchScript archive with both tensors. Error(kNotFound, kData).
void SaveDisplacements(const Displacements& displacements, const std::filesystem::path& file);
[[nodiscard]] Displacements LoadDisplacements(const std::filesystem::path& file);

}  // namespace bitplan
