// ONNX: the graph of quantized.pt, weights as integers and DequantizeLinear. docs/formats.md describes the file.
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "exporters/onnx_translation.h"

namespace bitplan {

void ExportOnnx(const ExportInputs& inputs, const ExportFiles& files) {
  WriteFileAtomically(files.first, onnx_file::Serialized(TranslatedModel(inputs, OnnxWeights::kIntegers)));
}

}  // namespace bitplan
