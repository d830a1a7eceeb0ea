// Batch-norm correction: quantization shifts the statistics that batch norm was trained with; they are measured again
// on unlabelled training images.
//
// One forward pass of all images through the quantized network corrects the batch norms in order: the statistics of a
// batch norm's input are taken when everything before it is already corrected, and its buffers are rewritten before it
// runs. With mean_q, var_q measured there and mean_f, var_f measured in the float network on the same images:
//   re-estimate:  mean <- mean_q,                  var <- var_q
//   transfer:     mean <- mean + mean_q - mean_f,  var <- var * var_q / var_f
// Transfer moves the change only and keeps what augmentation put into the trained statistics; applied to an unquantized
// network it changes nothing.
#pragma once

#include <string>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"

namespace bitplan {

struct BatchNormCorrection {
  std::string chosen = "off";  // off, re-estimate, transfer
  // Mean NLL of off, re-estimate and transfer on the calibration split, nats per sample; empty unless "auto" chose.
  std::vector<double> calibration_nll;
};

// Corrects `quantized` (a clone of network.module) in place, as options.batch_norm says. `images`: unlabelled training
// images, float32 normalized [n, C, H, W]; all go through at once, so n bounds the memory (n times one activation).
// "auto" takes the candidate with the least NLL on `calibration`, so it is never worse than "off" there.
// Networks without batch norm keep "off".
BatchNormCorrection CorrectBatchNorm(const Network& network, torch::jit::Module& quantized,
                                     const QuantizerOptions& options, const torch::Tensor& images,
                                     const Dataset& calibration, const Normalizer& normalizer, ProgressSink& progress);

}  // namespace bitplan
