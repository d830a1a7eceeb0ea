// Reads an ONNX file back, field by field, as onnx.proto3 numbers them; shares nothing with the writer.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace bitplan::testing {

struct ProtoField {
  int number = 0;
  std::uint64_t value = 0;  // a whole number, or the bits of a float32
  std::string_view bytes;
};

inline std::vector<ProtoField> ProtoFields(std::string_view message) {
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      if (message.empty() || shift > 63) throw std::runtime_error("onnx reader: a number does not end");
      const auto byte = static_cast<unsigned char>(message.front());
      message.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  };
  std::vector<ProtoField> fields;
  while (!message.empty()) {
    const std::uint64_t key = varint();
    ProtoField field{.number = static_cast<int>(key >> 3), .value = 0, .bytes = {}};
    const std::uint64_t kind = key & 7;
    if (kind == 0) {
      field.value = varint();
    } else {
      const std::uint64_t length = kind == 2 ? varint() : kind == 5 ? 4 : throw std::runtime_error("onnx reader: kind");
      if (length > message.size()) throw std::runtime_error("onnx reader: too short");
      field.bytes = message.substr(0, length);
      message.remove_prefix(length);
      if (kind == 5) std::memcpy(&field.value, field.bytes.data(), 4);
    }
    fields.push_back(field);
  }
  return fields;
}

struct ReadTensor {
  int type = 0;
  std::vector<std::int64_t> dims;
  std::string bytes;
};

struct ReadOperation {
  std::string type, name, domain;
  std::vector<std::string> inputs, outputs;
  std::map<std::string, std::vector<std::int64_t>> numbers;  // attributes of whole numbers
  std::map<std::string, std::string> texts;
};

struct ReadModel {
  std::int64_t ir_version = 0, opset = 0;
  std::map<std::string, std::int64_t> other_opsets;       // by domain
  std::map<std::string, std::vector<std::string>> ports;  // inputs and outputs; sizes as text, or the name of one
  std::vector<std::string> inputs, outputs;
  std::vector<ReadOperation> operations;
  std::map<std::string, ReadTensor> initializers;
  std::map<std::string, std::string> metadata;
};

inline ReadTensor ReadTensorOf(std::string_view message, std::string& name) {
  ReadTensor tensor;
  for (const ProtoField& field : ProtoFields(message)) {
    if (field.number == 1) tensor.dims.push_back(static_cast<std::int64_t>(field.value));
    if (field.number == 2) tensor.type = static_cast<int>(field.value);
    if (field.number == 8) name = field.bytes;
    if (field.number == 9) tensor.bytes = field.bytes;
  }
  return tensor;
}

inline ReadOperation ReadOperationOf(std::string_view message) {
  ReadOperation operation;
  for (const ProtoField& field : ProtoFields(message)) {
    if (field.number == 1) operation.inputs.emplace_back(field.bytes);
    if (field.number == 2) operation.outputs.emplace_back(field.bytes);
    if (field.number == 3) operation.name = field.bytes;
    if (field.number == 4) operation.type = field.bytes;
    if (field.number == 7) operation.domain = field.bytes;
    if (field.number != 5) continue;
    std::string name;
    std::vector<std::int64_t> numbers;
    for (const ProtoField& part : ProtoFields(field.bytes)) {
      if (part.number == 1) name = part.bytes;
      if (part.number == 4) operation.texts[name] = part.bytes;
      if (part.number == 3 || part.number == 8) numbers.push_back(static_cast<std::int64_t>(part.value));
    }
    operation.numbers[name] = numbers;
  }
  return operation;
}

inline std::string ReadPort(std::string_view message, std::vector<std::string>& sizes) {
  std::string name;
  for (const ProtoField& field : ProtoFields(message)) {
    if (field.number == 1) name = field.bytes;
    if (field.number != 2) continue;
    const auto tensor = ProtoFields(field.bytes).at(0);
    for (const ProtoField& part : ProtoFields(tensor.bytes)) {
      if (part.number != 2) continue;
      for (const ProtoField& dim : ProtoFields(part.bytes)) {
        const ProtoField size = ProtoFields(dim.bytes).at(0);
        sizes.push_back(size.number == 1 ? std::to_string(size.value) : std::string(size.bytes));
      }
    }
  }
  return name;
}

inline ReadModel ReadOnnx(std::string_view file) {
  ReadModel model;
  for (const ProtoField& field : ProtoFields(file)) {
    if (field.number == 1) model.ir_version = static_cast<std::int64_t>(field.value);
    if (field.number == 8) {
      const auto entry = ProtoFields(field.bytes);
      const auto version = static_cast<std::int64_t>(entry.at(1).value);
      if (entry.at(0).bytes.empty()) {
        model.opset = version;
      } else {
        model.other_opsets[std::string(entry.at(0).bytes)] = version;
      }
    }
    if (field.number == 14) {
      const auto entry = ProtoFields(field.bytes);
      model.metadata[std::string(entry.at(0).bytes)] = entry.at(1).bytes;
    }
    if (field.number != 7) continue;
    for (const ProtoField& part : ProtoFields(field.bytes)) {
      std::string name;
      std::vector<std::string> sizes;
      if (part.number == 1) model.operations.push_back(ReadOperationOf(part.bytes));
      if (part.number == 5) {
        const ReadTensor tensor = ReadTensorOf(part.bytes, name);
        model.initializers[name] = tensor;
      }
      if (part.number != 11 && part.number != 12) continue;
      name = ReadPort(part.bytes, sizes);
      (part.number == 11 ? model.inputs : model.outputs).push_back(name);
      model.ports[name] = sizes;
    }
  }
  return model;
}

}  // namespace bitplan::testing
