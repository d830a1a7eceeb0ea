#include "models/importers/onnx_file.h"

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <system_error>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"

namespace bitplan::onnx_import {
namespace {

// Operator sets whose meaning is known here: before the first, operators broadcast by attributes.
constexpr std::int64_t kOldestOpset = 7, kNewestOpset = 25;
constexpr std::uintmax_t kMostBytes = std::uintmax_t{1} << 31;  // no protobuf message is larger
// Of nodes, names, attributes, sizes and the like: a part takes two bytes in a file and a hundred in memory.
constexpr std::int64_t kMostParts = std::int64_t{1} << 21;

struct Field {
  std::uint64_t number = 0;
  std::uint64_t kind = 0;
  std::uint64_t value = 0;  // a whole number, or the bits of a float32 or a float64
  std::string_view bytes;
};

constexpr std::uint64_t kVarint = 0, kEightBytes = 1, kLengthAndBytes = 2, kFourBytes = 5;

// Reads the parts of one file and counts them.
class WireReader {
 public:
  explicit WireReader(std::string what) : what_(std::move(what)) {}

  [[noreturn]] void Damaged(const std::string& why) const {
    throw Error(ErrorKind::kData, fmt::format("{} cannot be read as ONNX: {}; export the model again", what_, why));
  }

  void Count() {
    if (++parts_ > kMostParts) Damaged(fmt::format("it has more than {} parts", kMostParts));
  }

  std::uint64_t Varint(std::string_view& rest) const {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest.empty()) Damaged("it ends within a number");
      const auto byte = static_cast<unsigned char>(rest.front());
      rest.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    Damaged("a number has more than 64 bits");
  }

  Field Next(std::string_view& rest) const {
    Field field;
    const std::uint64_t key = Varint(rest);
    field.number = key >> 3;
    field.kind = key & 7;
    if (field.number == 0) Damaged("a field has number 0");
    switch (field.kind) {
      case kVarint:
        field.value = Varint(rest);
        return field;
      case kLengthAndBytes:
        field.bytes = Take(rest, Varint(rest));
        return field;
      case kEightBytes:
      case kFourBytes:
        field.bytes = Take(rest, field.kind == kEightBytes ? 8 : 4);
        std::memcpy(&field.value, field.bytes.data(), field.bytes.size());
        return field;
      default:
        Damaged(fmt::format("a field is of the unknown kind {}", field.kind));
    }
  }

  template <typename Visit>
  void ForEach(std::string_view message, const Visit& visit) {
    while (!message.empty()) visit(Next(message));
  }

  [[nodiscard]] std::string_view Bytes(const Field& field) const {
    if (field.kind != kLengthAndBytes) Damaged(fmt::format("field {} holds no bytes", field.number));
    return field.bytes;
  }
  [[nodiscard]] std::string Text(const Field& field) {
    Count();
    return std::string(Bytes(field));
  }
  [[nodiscard]] std::int64_t Integer(const Field& field) const {
    if (field.kind != kVarint) Damaged(fmt::format("field {} holds no whole number", field.number));
    return static_cast<std::int64_t>(field.value);
  }

  // One number of a repeated field, or many of them packed.
  void Integers(const Field& field, std::vector<std::int64_t>& into) const {
    if (field.kind == kVarint) return into.push_back(static_cast<std::int64_t>(field.value));
    for (std::string_view rest = Bytes(field); !rest.empty();) {
      into.push_back(static_cast<std::int64_t>(Varint(rest)));
    }
  }
  template <typename Real>
  void Reals(const Field& field, std::vector<Real>& into) const {
    std::string_view rest = field.bytes;
    if (field.kind == kVarint || rest.size() % sizeof(Real) != 0) Damaged("a list of numbers is too short");
    const std::size_t before = into.size();
    into.resize(before + rest.size() / sizeof(Real));
    if (!rest.empty()) std::memcpy(into.data() + before, rest.data(), rest.size());
  }
  [[nodiscard]] float Real(const Field& field) const {
    std::vector<float> one;
    Reals(field, one);
    if (one.size() != 1) Damaged("a number is missing");
    return one.front();
  }

 private:
  std::string_view Take(std::string_view& rest, std::uint64_t length) const {
    if (length > rest.size()) Damaged("it ends too early");
    const std::string_view taken = rest.substr(0, length);
    rest.remove_prefix(length);
    return taken;
  }

  std::string what_;
  std::int64_t parts_ = 0;
};

TensorField TensorOf(WireReader& reader, std::string_view message) {
  TensorField tensor;
  reader.Count();
  reader.ForEach(message, [&](const Field& field) {
    if (field.number == 1) reader.Integers(field, tensor.dims);
    if (field.number == 2) tensor.type = reader.Integer(field);
    if (field.number == 4) reader.Reals(field, tensor.float_numbers);
    if (field.number == 5 || field.number == 7 || field.number == 11) reader.Integers(field, tensor.numbers);
    if (field.number == 8) tensor.name = reader.Text(field);
    if (field.number == 9) tensor.raw = reader.Bytes(field);
    if (field.number == 10) reader.Reals(field, tensor.double_numbers);
    if (field.number == 14) tensor.is_external = reader.Integer(field) == 1;
    if (field.number != 13) return;
    std::string key, value;
    reader.ForEach(reader.Bytes(field), [&](const Field& part) {
      if (part.number == 1) key = reader.Text(part);
      if (part.number == 2) value = reader.Text(part);
    });
    tensor.external[key] = value;
  });
  if (tensor.dims.size() > 64) reader.Damaged("a tensor has more than 64 dimensions");
  return tensor;
}

void AddAttribute(WireReader& reader, std::string_view message, NodeField& node) {
  AttributeField attribute;
  std::string name;
  reader.Count();
  reader.ForEach(message, [&](const Field& field) {
    if (field.number == 1) name = reader.Text(field);
    if (field.number == 2) attribute.real = reader.Real(field);
    if (field.number == 3) attribute.integer = reader.Integer(field);
    if (field.number == 4) attribute.text = reader.Text(field);
    if (field.number == 5) attribute.tensor = TensorOf(reader, reader.Bytes(field));
    if (field.number == 6 || field.number == 11) attribute.has_graph = true;
    if (field.number == 7) reader.Reals(field, attribute.reals);
    if (field.number == 8) reader.Integers(field, attribute.integers);
    if (field.number == 9) attribute.texts.push_back(reader.Text(field));
    if (field.number == 20) attribute.type = reader.Integer(field);
  });
  node.attributes[name] = std::move(attribute);
}

NodeField NodeOf(WireReader& reader, std::string_view message) {
  NodeField node;
  reader.Count();
  reader.ForEach(message, [&](const Field& field) {
    if (field.number == 1) node.inputs.push_back(reader.Text(field));
    if (field.number == 2) node.outputs.push_back(reader.Text(field));
    if (field.number == 3) node.name = reader.Text(field);
    if (field.number == 4) node.type = reader.Text(field);
    if (field.number == 5) AddAttribute(reader, reader.Bytes(field), node);
    if (field.number == 7) node.domain = reader.Text(field);
  });
  return node;
}

void AddSize(WireReader& reader, std::string_view message, PortField& port) {
  std::optional<std::int64_t> size;
  reader.Count();
  reader.ForEach(message, [&](const Field& field) {
    if (field.number == 1) size = reader.Integer(field);
  });
  if (size && *size <= 0) size.reset();  // some writers say "open" so
  port.dims.push_back(size);
}

PortField PortOf(WireReader& reader, std::string_view message) {
  PortField port;
  reader.Count();
  reader.ForEach(message, [&](const Field& field) {
    if (field.number == 1) port.name = reader.Text(field);
    if (field.number != 2) return;
    reader.ForEach(reader.Bytes(field), [&](const Field& type) {
      if (type.number != 1) return;
      reader.ForEach(reader.Bytes(type), [&](const Field& tensor) {
        if (tensor.number == 1) port.type = reader.Integer(tensor);
        if (tensor.number != 2) return;
        port.has_shape = true;
        reader.ForEach(reader.Bytes(tensor), [&](const Field& dim) {
          if (dim.number == 1) AddSize(reader, reader.Bytes(dim), port);
        });
      });
    });
  });
  return port;
}

void ReadGraph(WireReader& reader, std::string_view message, OnnxFile& model) {
  reader.ForEach(message, [&](const Field& field) {
    if (field.number == 1) model.nodes.push_back(NodeOf(reader, reader.Bytes(field)));
    if (field.number == 5) model.initializers.push_back(TensorOf(reader, reader.Bytes(field)));
    if (field.number == 11) model.inputs.push_back(PortOf(reader, reader.Bytes(field)));
    if (field.number == 12) model.outputs.push_back(PortOf(reader, reader.Bytes(field)));
    if (field.number == 15) reader.Damaged("it has sparse tensors, which bitplan does not read");
  });
}

void ReadOpset(WireReader& reader, std::string_view message, OnnxFile& model) {
  std::string domain;
  std::int64_t version = 0;
  reader.ForEach(message, [&](const Field& field) {
    if (field.number == 1) domain = reader.Text(field);
    if (field.number == 2) version = reader.Integer(field);
  });
  if (domain.empty() || domain == "ai.onnx") model.opset = version;
}

}  // namespace

std::string Shown(std::string_view name) {
  constexpr std::size_t kLongest = 80;
  std::string shown;
  for (const char c : name.substr(0, kLongest)) shown += c >= ' ' && c <= '~' ? c : '?';
  return name.size() > kLongest ? shown + "..." : shown;
}

OnnxFile ReadOnnxFile(const std::filesystem::path& file, const std::string& what) {
  std::error_code status;
  WireReader reader(what);
  if (std::filesystem::file_size(file, status) >= kMostBytes) reader.Damaged("it has more than 2 GB");
  OnnxFile model;
  model.bytes = std::make_shared<const std::string>(ReadFile(file, "model file"));
  if (model.bytes->starts_with("PK")) {
    throw Error(ErrorKind::kData, what + " is no ONNX file but an archive, as TorchScript is; name it .pt");
  }
  bool has_graph = false;
  reader.ForEach(*model.bytes, [&](const Field& field) {
    if (field.number == 8) ReadOpset(reader, reader.Bytes(field), model);
    if (field.number != 7) return;
    if (has_graph) reader.Damaged("it has two graphs");
    has_graph = true;
    ReadGraph(reader, reader.Bytes(field), model);
  });
  if (!has_graph) reader.Damaged("it has no graph");
  if (model.opset < kOldestOpset || model.opset > kNewestOpset) {
    throw Error(ErrorKind::kData, fmt::format("{} uses ONNX operator set {}; bitplan reads {} to {}: export the model "
                                              "again, with opset_version=17",
                                              what, model.opset, kOldestOpset, kNewestOpset));
  }
  return model;
}

}  // namespace bitplan::onnx_import
