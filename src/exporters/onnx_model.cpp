#include "exporters/onnx_model.h"

#include <cstring>
#include <limits>
#include <string_view>

#include "bitplan/core/error.h"

namespace bitplan::onnx_file {
namespace {

// A protobuf message: fields one after another, each with its number and kind before it.
class Message {
 public:
  void Number(int field, std::int64_t value) {
    Key(field, kVarint);
    Varint(static_cast<std::uint64_t>(value));
  }
  void Float(int field, float value) {
    Key(field, kFourBytes);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(bits >> shift & 0xFF);
  }
  void Bytes(int field, std::string_view value) {
    Key(field, kLengthAndBytes);
    Varint(value.size());
    bytes_ += value;
  }
  void Inner(int field, const Message& message) { Bytes(field, message.bytes_); }

  [[nodiscard]] std::string Take() && { return std::move(bytes_); }

 private:
  static constexpr std::uint64_t kVarint = 0, kLengthAndBytes = 2, kFourBytes = 5;

  void Key(int field, std::uint64_t kind) { Varint(static_cast<std::uint64_t>(field) << 3 | kind); }
  void Varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

Message TensorMessage(const Initializer& tensor) {
  Message message;
  for (const std::int64_t size : tensor.dims) message.Number(1, size);
  message.Number(2, static_cast<std::int64_t>(tensor.type));
  message.Bytes(8, tensor.name);
  message.Bytes(9, tensor.bytes);
  return message;
}

// Each kind of value has a field of its own, and a number that names the kind.
struct AttributeFields {
  Message& message;
  void operator()(std::int64_t value) const {
    message.Number(3, value);
    message.Number(20, 2);
  }
  void operator()(float value) const {
    message.Float(2, value);
    message.Number(20, 1);
  }
  void operator()(const std::string& value) const {
    message.Bytes(4, value);
    message.Number(20, 3);
  }
  void operator()(const std::vector<std::int64_t>& values) const {
    for (const std::int64_t value : values) message.Number(8, value);
    message.Number(20, 7);
  }
  void operator()(const std::vector<std::string>& values) const {
    for (const std::string& value : values) message.Bytes(9, value);
    message.Number(20, 8);
  }
};

Message OperationMessage(const Operation& operation) {
  Message message;
  for (const std::string& input : operation.inputs) message.Bytes(1, input);
  for (const std::string& output : operation.outputs) message.Bytes(2, output);
  message.Bytes(3, operation.name);
  message.Bytes(4, operation.type);
  for (const Attribute& attribute : operation.attributes) {
    Message inner;
    inner.Bytes(1, attribute.name);
    std::visit(AttributeFields{inner}, attribute.value);
    message.Inner(5, inner);
  }
  if (!operation.domain.empty()) message.Bytes(7, operation.domain);
  return message;
}

Message PortMessage(const Port& port) {
  Message shape, tensor, type, message;
  for (const auto& dim : port.dims) {
    Message inner;
    if (const auto* const size = std::get_if<std::int64_t>(&dim)) {
      inner.Number(1, *size);
    } else {
      inner.Bytes(2, std::get<std::string>(dim));
    }
    shape.Inner(1, inner);
  }
  tensor.Number(1, static_cast<std::int64_t>(port.type));
  tensor.Inner(2, shape);
  type.Inner(1, tensor);
  message.Bytes(1, port.name);
  message.Inner(2, type);
  return message;
}

}  // namespace

std::string Serialized(const Model& model) {
  Message graph;
  for (const Operation& operation : model.operations) graph.Inner(1, OperationMessage(operation));
  graph.Bytes(2, model.name);
  for (const Initializer& tensor : model.initializers) graph.Inner(5, TensorMessage(tensor));
  for (const Port& port : model.inputs) graph.Inner(11, PortMessage(port));
  for (const Port& port : model.outputs) graph.Inner(12, PortMessage(port));
  const auto opset = [](const std::string& domain, std::int64_t version) {
    Message message;
    message.Bytes(1, domain);
    message.Number(2, version);
    return message;
  };
  Message whole;
  whole.Number(1, model.ir_version);
  whole.Bytes(2, "bitplan");
  whole.Bytes(3, BITPLAN_VERSION);
  whole.Inner(7, graph);
  whole.Inner(8, opset("", model.opset));
  for (const auto& [domain, version] : model.other_opsets) whole.Inner(8, opset(domain, version));
  for (const auto& [key, value] : model.metadata) {
    Message entry;
    entry.Bytes(1, key);
    entry.Bytes(2, value);
    whole.Inner(14, entry);
  }
  std::string bytes = std::move(whole).Take();
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw Error(ErrorKind::kData,
                "the model has more than 2 GB, which an ONNX file cannot have; export --to packed can");
  }
  return bytes;
}

}  // namespace bitplan::onnx_file
