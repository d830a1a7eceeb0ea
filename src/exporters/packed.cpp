// The packed file: codes of every layer under the name of its weight, and what is small put together, because every
// name in the header of a safetensors file takes some ninety bytes. docs/formats.md describes the bytes.
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <torch/types.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "bitplan/core/error.h"
#include "bitplan/core/one_line.h"
#include "bitplan/exporters/quantized_network.h"
#include "bitplan/io/files.h"
#include "bitplan/quantizers/packing.h"
#include "io/json_text.h"
#include "io/json_whole.h"
#include "io/safetensors.h"
#include "quantizers/deflate.h"

namespace bitplan {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "bitplan", kVersion[] = "1";
// No attribute of a module has a colon in its name.
constexpr char kScales[] = "bitplan:scales", kWidths[] = "bitplan:widths", kOthers[] = "bitplan:";
constexpr std::uint8_t kHalfGrid = 0x10, kBitsMask = 0x0F;
constexpr std::size_t kLongestText = std::size_t{1} << 24;  // bytes of an inflated text
constexpr std::size_t kShortText = std::size_t{1} << 20;    // that any file may have
constexpr std::size_t kTextGrowth = 16;                     // times its deflated bytes that a longer one may have

struct NumberType {
  torch::ScalarType type;
  const char* name;   // in the index and of the tensor that holds all of them
  const char* dtype;  // of safetensors
};

constexpr NumberType kTypes[] = {{torch::kFloat64, "float64", "F64"}, {torch::kInt64, "int64", "I64"},
                                 {torch::kFloat32, "float32", "F32"}, {torch::kInt32, "int32", "I32"},
                                 {torch::kFloat16, "float16", "F16"}, {torch::kBFloat16, "bfloat16", "BF16"},
                                 {torch::kInt16, "int16", "I16"},     {torch::kInt8, "int8", "I8"},
                                 {torch::kUInt8, "uint8", "U8"},      {torch::kBool, "bool", "BOOL"}};

template <typename Matches>
const NumberType& TypeWhere(const std::string& what, Matches matches) {
  for (const NumberType& type : kTypes) {
    if (matches(type)) return type;
  }
  throw Error(ErrorKind::kData, "tensors of type " + what + " have no place in a packed file");
}

const NumberType& TypeOf(torch::ScalarType type) {
  return TypeWhere(c10::toString(type), [&](const NumberType& one) { return one.type == type; });
}

[[noreturn]] void Damaged(const std::string& why) { throw Error(ErrorKind::kData, why); }

std::string Base64(const std::string& bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(length));
  return text;
}

std::string FromBase64(const std::string& text) {
  if (text.size() % 4 != 0) Damaged("a text in its metadata is no base64");
  std::string bytes(text.size() / 4 * 3, '\0');
  const int length =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                      reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (length < 0) Damaged("a text in its metadata is no base64");
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  bytes.resize(static_cast<std::size_t>(length) - padding);
  return bytes;
}

// Text as it stands in the metadata: zlib, then base64.
std::string ShortText(const std::string& text) { return Base64(Deflated(text)); }

std::string LongText(const std::string& text) {
  const std::string deflated = FromBase64(text);
  std::string result;
  char part[1 << 14];
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) throw Error(ErrorKind::kInternal, "zlib cannot inflate");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(deflated.data()));
  stream.avail_in = static_cast<uInt>(deflated.size());
  const std::size_t longest = std::min(kLongestText, std::max(kShortText, kTextGrowth * deflated.size()));
  int state = Z_OK;
  while (state == Z_OK && result.size() < longest) {
    stream.next_out = reinterpret_cast<Bytef*>(part);
    stream.avail_out = sizeof part;
    state = inflate(&stream, Z_NO_FLUSH);
    result.append(part, sizeof part - stream.avail_out);
    if (stream.avail_in == 0 && stream.avail_out == sizeof part) break;
  }
  inflateEnd(&stream);
  if (state != Z_STREAM_END) Damaged("a text in its metadata is damaged");
  return result;
}

std::string_view BytesOf(const torch::Tensor& tensor) {  // contiguous
  return {static_cast<const char*>(tensor.data_ptr()), tensor.nbytes()};
}

Json InputEntry(const NetworkInput& input) {
  const NumberType& type = TypeOf(input.type);
  return {{"type", type.name}, {"shape", input.shape}};
}

// Everything of the file but the bytes of its tensors.
struct Layout {
  std::vector<safetensors::Entry> entries;  // in the order of the file: the widest numbers first, so all are aligned
  safetensors::Metadata metadata;           // without the hash
};

Layout LayoutOf(const QuantizedNetwork& network) {
  Json layers = Json::array(), others = Json::array();
  std::int64_t scales = 0, blocks = 0;
  std::vector<safetensors::Entry> codes;
  for (const QuantizedLayer& layer : network.layers) {
    Json parts = Json::array();
    std::int64_t bytes = 0;
    for (const QuantizedTensor& block : layer.blocks) {
      const std::int64_t own = block.bits > 0 ? block.scales.numel() : 0;
      parts.push_back({{"channels", block.codes.size(block.channel_dim)}, {"scales", own}});
      bytes += PackedBytes(block.codes.numel(), block.bits);
      scales += own;
      ++blocks;
    }
    layers.push_back({{"name", layer.name},
                      {"parameter", layer.parameter},
                      {"shape", layer.shape()},
                      {"channel_dim", layer.blocks.front().channel_dim},
                      {"blocks", parts}});
    if (bytes > 0) codes.push_back({layer.parameter, "U8", {bytes}, bytes});
  }
  std::map<std::string, std::int64_t> counts;  // by type
  for (const auto& [name, tensor] : network.others) {
    const NumberType& type = TypeOf(tensor.scalar_type());
    others.push_back({{"name", name}, {"type", type.name}, {"shape", tensor.sizes().vec()}});
    counts[type.name] += tensor.numel();
  }
  Layout layout;
  const auto add_scales = [&] {
    if (scales > 0) layout.entries.push_back({kScales, "F32", {scales}, 4 * scales});
  };
  for (const NumberType& type : kTypes) {
    if (type.type == torch::kFloat32) add_scales();
    const auto count = counts.find(type.name);
    if (count == counts.end()) continue;
    layout.entries.push_back({std::string(kOthers) + type.name,
                              type.dtype,
                              {count->second},
                              count->second * safetensors::TypeBytes(type.dtype)});
  }
  layout.entries.insert(layout.entries.end(), codes.begin(), codes.end());
  if (blocks > 0) layout.entries.push_back({kWidths, "U8", {blocks}, blocks});
  Json index = {{"layers", layers}, {"others", others}, {"tied", network.tied}};
  if (!network.made_from.empty()) index["made_from"] = network.made_from;
  if (!network.input.shape.empty()) index["input"] = InputEntry(network.input);
  layout.metadata = {{"format", kFormat}, {"version", kVersion}, {"index", ShortText(JsonText(index))}};
  if (!network.plan.empty()) layout.metadata.emplace_back("plan", ShortText(network.plan));
  return layout;
}

// Of the bytes of all tensors and of what describes them.
std::string HashOf(std::string_view body, const std::string& index, const std::string& plan) {
  return Sha256()
      .Update(body.data(), body.size())
      .Update(index.data(), index.size())
      .Update(plan.data(), plan.size())
      .Hex();
}

std::string ValueOf(const safetensors::Metadata& metadata, const std::string& key) {
  for (const auto& [name, value] : metadata) {
    if (name == key) return value;
  }
  return {};
}

std::int64_t CountOf(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) Damaged("a shape in its index is wrong");
  }
  return count;
}

// Takes numbers from a tensor of the file, one after another.
class Numbers {
 public:
  Numbers(const safetensors::File& file, const std::string& name, const std::string& dtype) : name_(name) {
    const auto found = file.tensors.find(name);
    if (found == file.tensors.end()) return;
    if (found->second.type != dtype) Damaged("tensor '" + name + "' has another type than it should");
    left_ = found->second.bytes;
  }
  std::string_view Take(std::int64_t bytes) {
    if (bytes < 0 || static_cast<std::size_t>(bytes) > left_.size()) Damaged("tensor '" + name_ + "' is too short");
    const std::string_view taken = left_.substr(0, static_cast<std::size_t>(bytes));
    left_.remove_prefix(taken.size());
    return taken;
  }
  void RequireEnd() const {
    if (!left_.empty()) Damaged("tensor '" + name_ + "' is too long");
  }

 private:
  std::string name_;
  std::string_view left_;
};

torch::Tensor TensorOf(std::string_view bytes, torch::ScalarType type, const std::vector<std::int64_t>& shape) {
  torch::Tensor tensor = torch::empty(shape, type);
  if (!bytes.empty()) std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

QuantizedLayer TakeLayer(const Json& entry, const safetensors::File& file, Numbers& scales, Numbers& widths) {
  QuantizedLayer layer{entry.at("name").get<std::string>(), entry.at("parameter").get<std::string>(), {}};
  const auto shape = WholeNumbers(entry.at("shape"));
  const auto channel_dim = WholeNumber(entry.at("channel_dim"));
  if (channel_dim < 0 || channel_dim >= static_cast<std::int64_t>(shape.size())) {
    Damaged("layer '" + layer.name + "' has no such dimension of channels");
  }
  Numbers codes(file, layer.parameter, "U8");
  std::int64_t channels = 0;
  for (const Json& part : entry.at("blocks")) {
    auto block_shape = shape;
    const auto own_channels = WholeNumber(part.at("channels"));
    const auto own_scales = WholeNumber(part.at("scales"));
    block_shape[static_cast<std::size_t>(channel_dim)] = own_channels;
    const auto width = static_cast<std::uint8_t>(widths.Take(1).front());
    const int bits = width & kBitsMask;
    const bool sound = bits <= 8 && (width & ~(kBitsMask | kHalfGrid)) == 0 && own_channels > 0 &&
                       own_channels <= shape[static_cast<std::size_t>(channel_dim)] &&
                       (bits == 0 ? own_scales == 0 : own_scales == 1 || own_scales == own_channels);
    if (!sound) Damaged("width or scales of layer '" + layer.name + "' are wrong");
    channels += own_channels;
    if (channels > shape[static_cast<std::size_t>(channel_dim)]) break;  // said below
    QuantizedTensor block;
    block.bits = bits;
    block.offset = (width & kHalfGrid) != 0 ? 0.5F : 0.0F;
    block.channel_dim = static_cast<int>(channel_dim);
    block.codes = UnpackCodes(codes.Take(PackedBytes(CountOf(block_shape), bits)), bits, block_shape);
    block.scales = bits == 0 ? torch::zeros({1}) : TensorOf(scales.Take(4 * own_scales), torch::kFloat32, {own_scales});
    if (!block.scales.isfinite().all().item<bool>()) Damaged("scales of layer '" + layer.name + "' are not finite");
    layer.blocks.push_back(std::move(block));
  }
  codes.RequireEnd();
  if (layer.blocks.empty() || channels != shape[static_cast<std::size_t>(channel_dim)]) {
    Damaged("the blocks of layer '" + layer.name + "' do not make its channels");
  }
  return layer;
}

NetworkInput InputOf(const Json& entry) {
  const auto name = entry.at("type").get<std::string>();
  const NumberType& type = TypeWhere(name, [&](const NumberType& one) { return name == one.name; });
  NetworkInput input{.shape = WholeNumbers(entry.at("shape")), .type = type.type};
  (void)CountOf(input.shape);
  return input;
}

QuantizedNetwork Parsed(const std::string& bytes) {
  const safetensors::File file = safetensors::Parse(bytes);
  const auto text = [&](const char* key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  if (text("format") != kFormat) Damaged("it is a safetensors file of something else");
  if (text("version") != kVersion) Damaged("its format version is '" + text("version") + "'; this program reads 1");
  if (text("sha256") != HashOf(file.body, text("index"), text("plan"))) {
    Damaged("it is damaged: its SHA-256 is not the one that it states");
  }
  const Json index = Json::parse(LongText(text("index")));
  QuantizedNetwork network;
  Numbers scales(file, kScales, "F32"), widths(file, kWidths, "U8");
  std::set<std::string> known;  // weights: a small file that named one many times would unpack to many
  for (const Json& entry : index.at("layers")) {
    if (!known.insert(entry.at("parameter").get<std::string>()).second) Damaged("its index names a weight twice");
    network.layers.push_back(TakeLayer(entry, file, scales, widths));
  }
  for (const auto& [name, tensor] : file.tensors) {
    if (name.rfind(kOthers, 0) != 0 && known.count(name) == 0) Damaged("its index does not know tensor '" + name + "'");
  }
  scales.RequireEnd();
  widths.RequireEnd();
  std::map<std::string, Numbers> by_type;
  for (const NumberType& type : kTypes) {
    by_type.emplace(type.name, Numbers(file, std::string(kOthers) + type.name, type.dtype));
  }
  for (const Json& entry : index.at("others")) {
    const auto name = entry.at("type").get<std::string>();
    const NumberType& type = TypeWhere(name, [&](const NumberType& one) { return name == one.name; });
    const auto shape = WholeNumbers(entry.at("shape"));
    std::int64_t size = 0;
    if (__builtin_mul_overflow(CountOf(shape), safetensors::TypeBytes(type.dtype), &size)) Damaged("a shape is wrong");
    const auto tensor = entry.at("name").get<std::string>();
    if (!known.insert(tensor).second) Damaged("its index names tensor '" + tensor + "' twice");
    network.others.emplace_back(tensor, TensorOf(by_type.at(name).Take(size), type.type, shape));
  }
  for (const auto& [name, numbers] : by_type) numbers.RequireEnd();
  network.tied = index.at("tied").get<std::map<std::string, std::string>>();
  network.made_from = index.value("made_from", "");
  if (index.contains("input")) network.input = InputOf(index.at("input"));
  if (!text("plan").empty()) network.plan = LongText(text("plan"));
  return network;
}

}  // namespace

std::string PackNetwork(const QuantizedNetwork& network) {
  const Layout layout = LayoutOf(network);
  std::map<std::string, std::string> bodies;  // by the name of the tensor
  for (const QuantizedLayer& layer : network.layers) {
    for (const QuantizedTensor& block : layer.blocks) {
      bodies[layer.parameter] += PackCodes(block);
      if (block.bits > 0) bodies[kScales] += BytesOf(block.scales.to(torch::kFloat32).contiguous());
      bodies[kWidths] += static_cast<char>(block.bits | (block.offset == 0.0F ? 0 : kHalfGrid));
    }
  }
  for (const auto& [name, tensor] : network.others) {
    const NumberType& type = TypeOf(tensor.scalar_type());
    bodies[std::string(kOthers) + type.name] += BytesOf(tensor.contiguous());
  }
  std::string body;
  for (const safetensors::Entry& entry : layout.entries) body += bodies.at(entry.name);
  auto metadata = layout.metadata;
  metadata.emplace_back("sha256", HashOf(body, ValueOf(metadata, "index"), ValueOf(metadata, "plan")));
  return safetensors::Header(layout.entries, metadata) + body;
}

std::int64_t PackedNetworkBytes(const QuantizedNetwork& network) {
  Layout layout = LayoutOf(network);
  layout.metadata.emplace_back("sha256", std::string(64, '0'));
  auto bytes = static_cast<std::int64_t>(safetensors::Header(layout.entries, layout.metadata).size());
  for (const safetensors::Entry& entry : layout.entries) bytes += entry.bytes;
  return bytes;
}

void SaveQuantizedNetwork(const QuantizedNetwork& network, const std::filesystem::path& file) {
  WriteFileAtomically(file, PackNetwork(network));
}

QuantizedNetwork ParseQuantizedNetwork(const std::string& bytes, const std::string& name) {
  try {
    return Parsed(bytes);
  } catch (const Error& error) {
    throw Error(ErrorKind::kData, "quantized network " + name + " cannot be read: " + OneLine(error.what()));
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorKind::kData, "quantized network " + name + " cannot be read: its index is damaged");
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kData,
                "quantized network " + name + " cannot be read: it asks for more memory than there is");
  } catch (const std::length_error&) {
    throw Error(ErrorKind::kData,
                "quantized network " + name + " cannot be read: it asks for more memory than there is");
  } catch (const c10::Error&) {
    throw Error(ErrorKind::kData,
                "quantized network " + name + " cannot be read: it holds a shape that no memory holds");
  }
}

QuantizedNetwork LoadQuantizedNetwork(const std::filesystem::path& file) {
  return ParseQuantizedNetwork(ReadFile(file, "quantized network"), file.string());
}

}  // namespace bitplan
