// ONNX: the graph of quantized.pt, weights as integers and DequantizeLinear. docs/formats.md describes the file.
#include <cstdint>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "bitplan/models/network.h"
#include "exporters/onnx_model.h"
#include "exporters/onnx_translation.h"

namespace bitplan {
namespace {

// Folders of earlier versions do not say what the network takes; it may be what the known data sets hold.
std::vector<std::int64_t> OnnxInputShape(const NetworkInput& input, const torch::jit::Module& module) {
  if (!input.shape.empty()) return input.shape;
  try {
    return GuessInputShape(module);
  } catch (const Error&) {
    throw Error(ErrorKind::kData,
                "onnx: this plan was applied by an earlier version, which did not keep the shape of "
                "the input; run the recipe again with another --out");
  }
}

}  // namespace

void ExportOnnx(const ExportInputs& inputs, const ExportFiles& files) {
  const torch::jit::Module module = LoadModule(inputs.torchscript);
  const auto shape = OnnxInputShape(inputs.input, module);
  onnx_file::Model model = TranslateToOnnx(inputs.network, module, shape, inputs.input.type);
  model.name = inputs.plan.model.name;
  model.metadata.emplace_back("plan", inputs.network.plan);
  WriteFileAtomically(files.first, onnx_file::Serialized(model));
}

}  // namespace bitplan
