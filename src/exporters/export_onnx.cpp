// ONNX: the graph of quantized.pt, weights as integers and DequantizeLinear. docs/formats.md describes the file.
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "bitplan/models/network.h"
#include "exporters/onnx_model.h"
#include "exporters/onnx_translation.h"

namespace bitplan {

void ExportOnnx(const ExportInputs& inputs, const std::filesystem::path& file) {
  const torch::jit::Module module = LoadModule(inputs.torchscript);
  // Folders of earlier versions do not say what the network takes.
  const auto shape = inputs.input.shape.empty() ? GuessInputShape(module) : inputs.input.shape;
  onnx_file::Model model = TranslateToOnnx(inputs.network, module, shape, inputs.input.type);
  model.name = inputs.plan.model.name;
  model.metadata.emplace_back("plan", inputs.network.plan);
  WriteFileAtomically(file, onnx_file::Serialized(model));
}

}  // namespace bitplan
