#include "bitplan/models/network.h"
#include "fuzz/targets.h"
#include "models/importers/onnx_file.h"
#include "models/importers/onnx_tensor.h"
#include "models/importers/state_dict.h"

#include <torch/types.h>

namespace bitplan::fuzz {

void FuzzOnnxFile(std::string_view bytes) {
  const auto path = FileOf("file.onnx", bytes);
  const auto file = onnx_import::ReadOnnxFile(path, "model file 'file.onnx'");
  for (const auto& tensor : file.initializers) (void)onnx_import::TorchTensor(tensor, path, "model file 'file.onnx'");
}

void FuzzOnnxModel(std::string_view bytes) { (void)LoadModule(FileOf("model.onnx", bytes)); }

void FuzzTorchScript(std::string_view bytes) { (void)LoadModule(FileOf("model.pt", bytes)); }

void FuzzStateDict(std::string_view bytes) {
  const auto tensors = UnpickleTensors(bytes, [](const std::string&) { return torch::ones({64}, torch::kByte); });
  for (const auto& [name, tensor] : tensors) (void)tensor.to(torch::kDouble).sum().item<double>();
}

}  // namespace bitplan::fuzz
