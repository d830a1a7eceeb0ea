// QONNX: the graph of quantized.pt with weights in float32 and a Quant node behind each, which states the integers that
// they are. A description for tools that build hardware (FINN, hls4ml), not a smaller file.
//
//   grid zero, 2 to 8 bits     Quant, bit width as planned, zero point 0, narrow 0
//   grid half, 1 bit           BipolarQuant, half of the magnitude of our scale
//   grid half, 2 to 8 bits     Quant, one bit more, narrow 1, half of our scale: odd integers
//   grid zero, 1 bit           Quant of 2 bits: one of 1 bit is read as a sign
//   0 bits                     ConstantOfShape
//
// A negative scale stays: the published formula divides and multiplies by it. A zero point of -1/2 (grid half) would
// keep the width of the plan, but QONNX's own tools take zero point 0 alone.
// Source: github.com/fastmachinelearning/qonnx, docs/qonnx-custom-ops/intquant_v1.md and bipolarquant_v1.md, and
// src/qonnx/custom_op/general/intquant.py, commit cc2ec17 (after v0.4.0). Domain qonnx.custom_op.general, version 1.
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "exporters/onnx_translation.h"

namespace bitplan {

// The published formula takes scales of both signs; FINN refuses those below zero.
HeldLayer QonnxHolds(const Layer&) {
  return {.limits = {.zero = {0, 2, 3, 4, 5, 6, 7, 8}, .half = {1}, .negative_scales = false}};
}

void ExportQonnx(const ExportInputs& inputs, const ExportFiles& files) {
  WriteFileAtomically(files.first, onnx_file::Serialized(TranslatedModel(inputs, OnnxWeights::kQuantNodes)));
}

}  // namespace bitplan
