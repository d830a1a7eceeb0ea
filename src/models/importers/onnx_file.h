// An ONNX file as plain values. The format is Protocol Buffers; this reads its wire format with a bound on every
// length, so that a damaged or hostile file is refused in one line. Source: onnx.proto3 of https://github.com/onnx/onnx
// (field numbers and types), protobuf.dev (wire format).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bitplan::onnx_import {

// Views point into the bytes of the file, which OnnxFile keeps.
struct TensorField {
  std::string name;
  std::int64_t type = 0;  // TensorProto.DataType
  std::vector<std::int64_t> dims;
  std::string_view raw;               // little-endian, C order
  std::vector<std::int64_t> numbers;  // of int32_data, int64_data, uint64_data
  std::vector<float> float_numbers;
  std::vector<double> double_numbers;
  std::map<std::string, std::string> external;  // location, offset, length: the numbers lie in a file beside this one
  bool is_external = false;
};

struct AttributeField {
  std::int64_t type = 0;  // AttributeProto.AttributeType; 0 in old files
  float real = 0.0F;
  std::int64_t integer = 0;
  std::string text;
  std::optional<TensorField> tensor;
  std::vector<float> reals;
  std::vector<std::int64_t> integers;
  std::vector<std::string> texts;
  bool has_graph = false;
};

struct NodeField {
  std::string type, domain, name;
  std::vector<std::string> inputs, outputs;  // an empty name: left out
  std::map<std::string, AttributeField> attributes;
};

// An input or an output of the graph.
struct PortField {
  std::string name;
  std::int64_t type = 0;
  bool has_shape = false;
  std::vector<std::optional<std::int64_t>> dims;  // empty: the file leaves the size open
};

struct OnnxFile {
  std::shared_ptr<const std::string> bytes;  // shared, so that views stay where they are
  std::int64_t opset = 0;
  std::vector<NodeField> nodes;
  std::vector<TensorField> initializers;
  std::vector<PortField> inputs, outputs;
};

// Error(kNotFound) missing; Error(kData) no ONNX file, damaged, or of an operator set that is not known here. `what`
// begins the messages: "model file 'x.onnx'".
[[nodiscard]] OnnxFile ReadOnnxFile(const std::filesystem::path& file, const std::string& what);

// A name of the file as a message shows it: one line, of a bounded length.
[[nodiscard]] std::string Shown(std::string_view name);

}  // namespace bitplan::onnx_import
