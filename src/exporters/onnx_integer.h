// Makes layers whose inputs are quantized what integer kernels take: no batch norm behind them, and a bias in whole
// steps of the products.
#pragma once

#include "exporters/onnx_model.h"

namespace bitplan {

// Of every Conv (and Gemm) with quantized inputs and integer weights:
//   * a BatchNormalization that alone reads its output goes into the scales and the bias. Codes stay; a scale is
//     multiplied by gamma / sqrt(var + eps) in float32;
//   * the bias becomes int32 in steps of input scale times weight scale, with DequantizeLinear behind it, where all of
//     it lies on whole steps (ptq/integer_biases.h). Elsewhere it stays in float: no value is changed.
// A runtime that computes in float gets the same outputs up to the last digits of sums.
void MakeIntegerLayers(onnx_file::Model& model);

}  // namespace bitplan
