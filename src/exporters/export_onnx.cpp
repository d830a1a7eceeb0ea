// ONNX: the graph of quantized.pt, weights as integers and DequantizeLinear. docs/formats.md describes the file.
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "exporters/onnx_translation.h"

namespace bitplan {

// Integers have 2, 4 or 8 bits; a layer of zeros is ConstantOfShape. The grid half takes a bit more than it counts. A
// scale below zero is right in ONNX Runtime; TensorRT, which reads the same files, refuses it.
HeldLayer OnnxHolds(const Layer&) { return {.limits = {.zero = {0, 2, 4, 8}, .half = {}, .negative_scales = false}}; }

void ExportOnnx(const ExportInputs& inputs, const ExportFiles& files) {
  WriteFileAtomically(files.first, onnx_file::Serialized(TranslatedModel(inputs, OnnxWeights::kIntegers)));
}

}  // namespace bitplan
