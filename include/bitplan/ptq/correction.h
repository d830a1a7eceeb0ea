// Correction after quantization, on unlabelled training images and in one forward pass of the quantized network: each
// statistic is taken when everything before it is already corrected, and takes effect before the pass goes on.
//
// Batch norm. Quantization shifts the statistics that batch norm was trained with. With mean_q, var_q measured at a
// batch norm's input there and mean_f, var_f in the float network on the same images:
//   re-estimate:  mean <- mean_q,                  var <- var_q
//   transfer:     var <- var * var_q / var_f,      mean <- mean_q + (mean - mean_f) * sqrt(var_q / var_f)
// Transfer moves the change only and keeps what augmentation put into the trained statistics; applied to an unquantized
// network it changes nothing.
//
// Outputs. A layer that feeds no batch norm is corrected itself: the outputs y_q of every output channel are fitted to
// those of the float network by least squares,
//   fit:          y_f ~ s y_q + t,   scale <- s scale,   bias <- s bias + t.
// This costs no bits: s goes into the scale that the channel has anyway, and the weights are made anew from the same
// codes; t goes into its float bias. A layer without a bias
// gets s alone (fitted through the origin); with granularity "tensor" one s serves the whole layer.
#pragma once

#include "bitplan/core/correction.h"
#include "bitplan/core/options.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "bitplan/ptq/apply.h"
#include "bitplan/ptq/float_side.h"

namespace bitplan {

// Corrects what ApplyBits made of `network` in place, as options.batch_norm and options.output_correction say.
// `images`: unlabelled training images, float32 normalized [n, C, H, W]; all go through at once, so n bounds the memory
// (n times one activation, and at most 256 MiB of float outputs). "auto" takes the candidate with the least NLL on
// `calibration`, so it is never worse than "off" there: batch norm first, then outputs on top of it. What a network has
// nothing to correct for stays "off": no batch norm, or no quantized layer that feeds anything else.
[[nodiscard]] Correction CorrectNetwork(const Network& network, AppliedPlan& applied, const QuantizerOptions& options,
                                        const torch::Tensor& images, const Dataset& calibration,
                                        const Normalizer& normalizer, ProgressSink& progress);
// The same against what the float network gave on reference.images(), for who needs that again.
[[nodiscard]] Correction CorrectNetwork(const Network& network, AppliedPlan& applied, const QuantizerOptions& options,
                                        FloatSide& reference, const Dataset& calibration, const Normalizer& normalizer,
                                        ProgressSink& progress);

// Whether a correction changes a network that is not quantized. Re-estimated batch norms do: statistics that were
// spoiled get better, good ones can get worse. `transfer` and `fit` alone do not: there is no change to move, and every
// output fits itself.
[[nodiscard]] bool ChangesFloat(const CorrectionMethod& method);

// A clone of the float network with the correction that a quantized one got, to set that one against. `method`: what
// CorrectNetwork chose there. Behind re-estimated batch norms `fit` is no identity: outputs are fitted to those of the
// uncorrected float network, as in the quantized one. `rounded`: the layers that were quantized there [layers].
// `images`: the same as there; Error(kUsage) without any.
[[nodiscard]] torch::jit::Module CorrectFloat(const Network& network, const CorrectionMethod& method,
                                              const std::vector<bool>& rounded, const QuantizerOptions& options,
                                              const torch::Tensor& images);

}  // namespace bitplan
