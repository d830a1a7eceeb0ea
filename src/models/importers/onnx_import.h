// ONNX files as TorchScript modules.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <filesystem>
#include <string>

namespace bitplan {

// Whether a file is read as ONNX: by its name, *.onnx.
[[nodiscard]] bool IsOnnxFile(const std::filesystem::path& file);

// The network of an ONNX file as a module: initializers are parameters and buffers under the names of the file, nodes
// are the operations of forward, which takes a batch of any size. A last softmax is left out, so that the answers are
// logits. `what` begins the messages. Error(kNotFound), Error(kData) in one line that names the node.
[[nodiscard]] torch::jit::Module ImportOnnx(const std::filesystem::path& file, const std::string& what);

}  // namespace bitplan
