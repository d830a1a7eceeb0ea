// Layout: "BPVN", uint32 version, uint64 length of the header, the header, the tensors one after another. Integers are
// little-endian; codes are packed from the lowest bit of the first byte on.
#include <fmt/format.h>
#include <torch/types.h>
#include <zlib.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "bitplan/bayes/activations.h"
#include "bitplan/bayes/stored_network.h"
#include "bitplan/core/error.h"
#include "bitplan/core/one_line.h"
#include "bitplan/io/files.h"
#include "bitplan/quantizers/packing.h"
#include "io/json_text.h"
#include "io/json_whole.h"
#include "quantizers/deflate.h"

namespace bitplan {
namespace {

constexpr char kMagic[] = "BPVN";
constexpr std::uint32_t kVersion = 1;

using Json = nlohmann::ordered_json;

std::string PackedLevels(const torch::Tensor& codes, int bits) {  // uint8, each below 2^bits
  const torch::Tensor flat = codes.contiguous();
  std::string packed(static_cast<std::size_t>(PackedBytes(flat.numel(), bits)), '\0');
  PackBits(flat.data_ptr<std::uint8_t>(), flat.numel(), bits, reinterpret_cast<std::uint8_t*>(packed.data()));
  return packed;
}

torch::Tensor UnpackedLevels(const std::string& packed, int bits, const std::vector<std::int64_t>& shape) {
  torch::Tensor codes = torch::empty(shape, torch::kUInt8);
  UnpackBits(reinterpret_cast<const std::uint8_t*>(packed.data()), codes.numel(), bits, codes.data_ptr<std::uint8_t>());
  return codes;
}

std::string Inflated(const std::string& bytes, std::size_t size) {
  std::string inflated(size, '\0');
  uLongf length = size;
  const int state = uncompress(reinterpret_cast<Bytef*>(inflated.data()), &length,
                               reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  if (state != Z_OK || length != size) throw Error(ErrorKind::kData, "deflated bytes are damaged");
  return inflated;
}

std::string FloatBytes(const torch::Tensor& tensor) {
  const torch::Tensor values = tensor.detach().to(torch::kFloat32).contiguous();
  return {static_cast<const char*>(values.data_ptr()), values.nbytes()};
}

class Writer {
 public:
  Json Floats(const torch::Tensor& tensor) {
    const std::string bytes = FloatBytes(tensor);
    body_ += bytes;
    return {{"shape", tensor.sizes().vec()}, {"bytes", bytes.size()}};
  }
  Json Codes(const torch::Tensor& codes, int bits) {
    const std::string plain = PackedLevels(codes, bits), deflated = Deflated(plain);
    const bool shorter = deflated.size() < plain.size();
    body_ += shorter ? deflated : plain;
    return {{"shape", codes.sizes().vec()},
            {"bits", bits},
            {"bytes", shorter ? deflated.size() : plain.size()},
            {"deflated", shorter}};
  }
  [[nodiscard]] std::string File(const Json& header) const {
    const std::string text = JsonText(header);
    std::string file(kMagic, 4);
    const std::uint32_t version = kVersion;
    const std::uint64_t length = text.size();
    file.append(reinterpret_cast<const char*>(&version), sizeof version);
    file.append(reinterpret_cast<const char*>(&length), sizeof length);
    return file + text + body_;
  }

 private:
  std::string body_;
};

class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {
    std::uint32_t version = 0;
    std::uint64_t length = 0;
    if (Take(4) != std::string(kMagic, 4)) throw Error(ErrorKind::kData, "it is no packed Bayesian network");
    std::memcpy(&version, Take(sizeof version).data(), sizeof version);
    if (version != kVersion) throw Error(ErrorKind::kData, "it has another format version");
    std::memcpy(&length, Take(sizeof length).data(), sizeof length);
    header = Json::parse(Take(length));
  }
  [[nodiscard]] bool AtEnd() const { return at_ == file_.size(); }

  torch::Tensor Floats(const Json& entry) {
    const auto shape = WholeNumbers(entry.at("shape"));
    const std::string bytes = Take(static_cast<std::size_t>(WholeNumber(entry.at("bytes"))));
    if (bytes.size() != Count(shape) * sizeof(float)) throw Error(ErrorKind::kData, "a tensor has the wrong length");
    torch::Tensor tensor = torch::empty(shape);
    std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
    if (!tensor.isfinite().all().item<bool>()) throw Error(ErrorKind::kData, "it holds NaN or infinite values");
    return tensor;
  }
  torch::Tensor Codes(const Json& entry, int bits) {
    const auto shape = WholeNumbers(entry.at("shape"));
    if (WholeNumber(entry.at("bits")) != bits || bits < 1 || bits > 8)
      throw Error(ErrorKind::kData, "a width is wrong");
    std::string bytes = Take(static_cast<std::size_t>(WholeNumber(entry.at("bytes"))));
    const std::size_t plain = (Count(shape) * static_cast<std::size_t>(bits) + 7) / 8;
    if (entry.at("deflated").get<bool>()) bytes = Inflated(bytes, plain);
    if (bytes.size() != plain) throw Error(ErrorKind::kData, "a tensor has the wrong length");
    return UnpackedLevels(bytes, bits, shape);
  }

  Json header;

 private:
  static constexpr std::size_t kMostNumbers = std::size_t{1} << 48;  // of a tensor: bits of them are counted too

  static std::size_t Count(const std::vector<std::int64_t>& shape) {
    std::size_t count = 1;
    for (const std::int64_t size : shape) {
      if (size < 0 || __builtin_mul_overflow(count, static_cast<std::size_t>(size), &count) || count > kMostNumbers) {
        throw Error(ErrorKind::kData, "a shape is wrong");
      }
    }
    return count;
  }
  std::string Take(std::size_t bytes) {
    if (bytes > file_.size() - at_) throw Error(ErrorKind::kData, "it ends too early");
    std::string part = file_.substr(at_, bytes);
    at_ += bytes;
    return part;
  }

  const std::string& file_;
  std::size_t at_ = 0;
};

Json PutGrid(Writer& writer, const UniformGrid& grid) {
  if (grid.bits == kFloatBits) return nullptr;
  return {{"bits", grid.bits}, {"offset", grid.offset}, {"steps", writer.Floats(grid.steps)}};
}

// "bits" of the entry, 1..8.
int WidthOf(const Json& entry) {
  const std::int64_t bits = WholeNumber(entry.at("bits"));
  if (bits < 1 || bits > 8) throw Error(ErrorKind::kData, "a width is wrong: it must be in 1..8");
  return static_cast<int>(bits);
}

UniformGrid TakeGrid(Reader& reader, const Json& entry, std::int64_t channels) {
  if (entry.is_null()) return {};
  const UniformGrid grid{WidthOf(entry), entry.at("offset").get<double>(), reader.Floats(entry.at("steps"))};
  const bool fits = grid.steps.dim() == 1 && (grid.steps.numel() == 1 || grid.steps.numel() == channels);
  const bool known_offset = grid.offset == 0.0 || grid.offset == 0.5;
  if (!known_offset || !fits || grid.steps.eq(0.0).any().item<bool>()) {
    throw Error(ErrorKind::kData, "the grid of a layer is wrong");
  }
  return grid;
}

// Parameters and buffers of the module that are no layer's weight.
std::vector<std::pair<std::string, torch::Tensor>> Others(const Network& network) {
  std::vector<std::pair<std::string, torch::Tensor>> others;
  const auto add = [&](const std::string& name, const torch::Tensor& tensor) {
    for (const Layer& layer : network.layers) {
      if (GetTensor(network.module, layer.parameter).data_ptr() == tensor.data_ptr()) return;
    }
    if (tensor.is_floating_point() && tensor.numel() > 0) others.emplace_back(name, tensor);
  };
  for (const auto& entry : network.module.named_parameters()) add(entry.name, entry.value);
  for (const auto& entry : network.module.named_buffers()) add(entry.name, entry.value);
  return others;
}

std::string Packed(const StoredNetwork& stored, bool as_float) {
  Writer writer;
  Json layers = Json::array(), others = Json::array();
  for (std::size_t l = 0; l < stored.layers.size(); ++l) {
    const StoredLayer& layer = stored.layers[l];
    const int dim = stored.network.layers[l].output_dim;
    Json entry = {{"name", stored.network.layers[l].name}};
    if (as_float || layer.mean.defined()) {
      entry["mean"] = writer.Floats(layer.Mean(dim));
    } else {
      const int bits = layer.mean_grid.bits;
      entry["mean_grid"] = PutGrid(writer, layer.mean_grid);
      entry["mean"] = writer.Codes(layer.mean_codes.to(torch::kInt16).add_(1 << (bits - 1)).to(torch::kUInt8), bits);
    }
    if (as_float || layer.sigma.defined()) {
      entry["sigma"] = writer.Floats(layer.Sigma());
    } else {
      const LevelGrid& grid = layer.sigma_grid;
      entry["sigma_grid"] = {{"bits", grid.bits}, {"scale", grid.scale}, {"low", grid.low}, {"step", grid.step}};
      entry["sigma"] = writer.Codes(layer.sigma_codes, grid.bits);
    }
    if (!as_float && layer.sample_grid.bits != kFloatBits) entry["samples"] = PutGrid(writer, layer.sample_grid);
    layers.push_back(std::move(entry));
  }
  for (const auto& [name, tensor] : Others(stored.network)) {
    if (as_float && name.rfind("activation_step_", 0) == 0) continue;
    Json entry = writer.Floats(tensor);
    entry["name"] = name;
    others.push_back(std::move(entry));
  }
  Json header = {{"layers", layers}, {"others", others}};
  if (!as_float && stored.activation_bits != kFloatBits) {
    header["activations"] = {{"bits", stored.activation_bits}, {"signed", stored.activation_signed}};
  }
  return writer.File(header);
}

}  // namespace

PackedSize SavePacked(const StoredNetwork& stored, const std::filesystem::path& file) {
  const std::string packed = Packed(stored, false);
  WriteFileAtomically(file, packed);
  return {static_cast<std::int64_t>(packed.size()), static_cast<std::int64_t>(Packed(stored, true).size())};
}

StoredNetwork LoadPacked(const std::filesystem::path& file, const Network& network) {
  const std::string bytes = ReadFile(file, "packed network");
  const auto fail = [&](const std::string& why) -> Error {
    return {ErrorKind::kData, "packed network " + file.string() + " cannot be used: " + OneLine(why)};
  };
  try {
    Reader reader(bytes);
    StoredNetwork stored;
    stored.network = network;
    stored.network.module = CloneModule(network.module);
    if (reader.header.contains("activations")) {
      const Json& activations = reader.header.at("activations");
      stored.activation_bits = WidthOf(activations);
      stored.activation_signed = activations.at("signed").get<std::vector<bool>>();
      if (stored.activation_signed.size() != network.layers.size()) throw fail("its activations are not the model's");
      std::vector<ActivationQuantizer> quantizers;
      stored.network = WithQuantizedActivations(network, stored.activation_bits, stored.activation_signed, quantizers);
    }
    const Json& entries = reader.header.at("layers");
    if (entries.size() != network.layers.size()) throw fail("it has another number of layers than the model");
    for (std::size_t l = 0; l < entries.size(); ++l) {
      const Json& entry = entries[l];
      const Layer& known = network.layers[l];
      if (entry.at("name") != known.name || entry.at("mean").at("shape") != Json(known.shape) ||
          entry.at("sigma").at("shape") != Json(known.shape)) {
        throw fail("layer " + known.name + " of the model is not the one that was packed");
      }
      StoredLayer layer;
      if (entry.contains("mean_grid")) {
        layer.mean_grid = TakeGrid(reader, entry.at("mean_grid"), known.output_channels());
        const int bits = layer.mean_grid.bits;
        layer.mean_codes =
            reader.Codes(entry.at("mean"), bits).to(torch::kInt16).sub_(1 << (bits - 1)).to(torch::kInt8);
      } else {
        layer.mean = reader.Floats(entry.at("mean"));
      }
      if (entry.contains("sigma_grid")) {
        const Json& grid = entry.at("sigma_grid");
        layer.sigma_grid = {WidthOf(grid), grid.at("scale").get<std::string>(), grid.at("low").get<double>(),
                            grid.at("step").get<double>()};
        layer.sigma_bits = layer.sigma_grid.bits;
        const LevelGrid& levels = layer.sigma_grid;
        const bool sane = (levels.scale == "log" || levels.scale == "linear") && std::isfinite(levels.low) &&
                          std::isfinite(levels.step) && levels.step >= 0.0;
        if (!sane) throw fail("the levels of " + known.name + " are wrong");
        layer.sigma_codes = reader.Codes(entry.at("sigma"), layer.sigma_bits);
      } else {
        layer.sigma = reader.Floats(entry.at("sigma"));
        const bool positive = layer.sigma.ge(0.0).all().item<bool>() && layer.sigma.isfinite().all().item<bool>();
        if (!positive) throw fail("a standard deviation of " + known.name + " is negative or not finite");
      }
      if (entry.contains("samples")) layer.sample_grid = TakeGrid(reader, entry.at("samples"), known.output_channels());
      stored.layers.push_back(std::move(layer));
    }
    std::set<std::string> missing;
    for (const auto& [name, tensor] : Others(stored.network)) missing.insert(name);
    for (const Json& entry : reader.header.at("others")) {
      const auto name = entry.at("name").get<std::string>();
      if (missing.erase(name) == 0) throw fail(name + " is stated twice, or is none of the model's other parameters");
      const torch::Tensor value = reader.Floats(entry);
      if (GetTensor(stored.network.module, name).sizes() != value.sizes()) throw fail(name + " has another shape");
      SetTensor(stored.network.module, name, value);
    }
    if (!missing.empty()) throw fail("parameter " + *missing.begin() + " of the model is missing");
    if (!reader.AtEnd()) throw fail("something follows its last tensor");
    return stored;
  } catch (const Error& error) {
    const std::string what = error.what();
    throw what.rfind("packed network ", 0) == 0 ? error : fail(what);
  } catch (const std::exception&) {
    throw fail("its header is damaged");
  }
}

}  // namespace bitplan
