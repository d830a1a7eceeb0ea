// What a model file says about its input.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace bitplan {

// The shape of one input, without the batch, as an ONNX file states it; empty for TorchScript, which states none, and
// where the file leaves a size open. Error(kData) when the file cannot be read.
[[nodiscard]] std::vector<std::int64_t> StatedInputShape(const std::filesystem::path& file);

}  // namespace bitplan
