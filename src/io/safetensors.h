// The container format safetensors: a header in JSON, then the bytes of all tensors without a gap.
//   https://github.com/huggingface/safetensors#format
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bitplan::safetensors {

struct Entry {
  std::string name;
  std::string type;  // F32, U8, I64, ...
  std::vector<std::int64_t> shape;
  std::int64_t bytes = 0;
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

// Length and header of a file whose tensors follow in the order of `entries`; a multiple of 8 bytes.
[[nodiscard]] std::string Header(const std::vector<Entry>& entries, const Metadata& metadata);

// Bytes of one number of a type; 0 for a type that is not known.
[[nodiscard]] std::int64_t TypeBytes(std::string_view type);

struct Tensor {
  std::string type;
  std::vector<std::int64_t> shape;
  std::string_view bytes;  // within the file
};

struct File {
  std::map<std::string, std::string> metadata;
  std::map<std::string, Tensor> tensors;
  std::string_view body;  // the bytes of all tensors
};

// `bytes` has to stay where it is as long as the answer is used. Error(kData), one line without the name of the file,
// when the header breaks a rule of the format: every length is checked before it is believed.
[[nodiscard]] File Parse(const std::string& bytes);

}  // namespace bitplan::safetensors
