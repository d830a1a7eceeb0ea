#include "bitplan/models/network.h"
#include "fuzz/targets.h"
#include "models/importers/onnx_file.h"
#include "models/importers/onnx_tensor.h"

namespace bitplan::fuzz {

void FuzzOnnxFile(std::string_view bytes) {
  const auto path = FileOf("file.onnx", bytes);
  const auto file = onnx_import::ReadOnnxFile(path, "model file 'file.onnx'");
  for (const auto& tensor : file.initializers) (void)onnx_import::TorchTensor(tensor, path, "model file 'file.onnx'");
}

void FuzzOnnxModel(std::string_view bytes) { (void)LoadModule(FileOf("model.onnx", bytes)); }

void FuzzTorchScript(std::string_view bytes) { (void)LoadModule(FileOf("model.pt", bytes)); }

}  // namespace bitplan::fuzz
