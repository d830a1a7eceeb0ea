// GGUF, the file of ggml and llama.cpp: weights of linear layers in the block types that hold the grid of their width
// exactly, everything else as it is. docs/formats.md describes the file.
//
// Blocks have scales in float16, plans have them in float32. Where every scale of a layer is a float16, it stands in
// the blocks. Otherwise the blocks hold code + offset, and the tensor NAME.scale holds the scales, one for each row:
// the weight is their product in float32, or the output of the layer is multiplied by them. Every weight is compared
// with its value before it is written; what no block type holds is float32. Source: github.com/ggml-org/ggml,
// docs/gguf.md (version 3), include/gguf.h and include/ggml.h, version 0.21.0, commit d99724f.
#include <fmt/format.h>
#include <torch/types.h>

#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "exporters/gguf_blocks.h"

namespace bitplan {
namespace {

constexpr std::uint32_t kGgufVersion = 3, kQuantizationVersion = 2, kGgufAlignment = 32;
constexpr std::size_t kLongestGgufName = 63, kMostGgufDims = 4;
constexpr char kScaleEnding[] = ".scale";

template <typename Number>
void AppendRaw(std::string& bytes, Number value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void AppendText(std::string& bytes, const std::string& text) {
  AppendRaw(bytes, static_cast<std::uint64_t>(text.size()));
  bytes += text;
}

void AppendPadding(std::string& bytes) {
  bytes.append((kGgufAlignment - bytes.size() % kGgufAlignment) % kGgufAlignment, '\0');
}

gguf::Type GgufType(const std::string& name, torch::ScalarType type) {
  using gguf::Type;
  static const std::map<torch::ScalarType, Type> types = {
      {torch::kFloat32, Type::kF32}, {torch::kFloat64, Type::kF64},   {torch::kFloat16, Type::kF16},
      {torch::kInt64, Type::kI64},   {torch::kBFloat16, Type::kBf16}, {torch::kInt32, Type::kI32},
      {torch::kInt16, Type::kI16},   {torch::kInt8, Type::kI8},       {torch::kBool, Type::kI8}};
  const auto found = types.find(type);
  if (found != types.end()) return found->second;
  throw Error(ErrorKind::kData, fmt::format("gguf: tensor '{}' is of type {}, which ggml has no name for; convert the "
                                            "model to float32 and run the recipe again",
                                            name, c10::toString(type)));
}

class GgufFile {
 public:
  void Add(const std::string& name, gguf::Type type, const std::vector<std::int64_t>& shape, std::string data) {
    if (name.size() > kLongestGgufName) {
      throw Error(ErrorKind::kData, fmt::format("gguf: the name '{}' has {} characters, ggml takes {}; shorten the "
                                                "names of the modules, or export --to packed",
                                                name, name.size(), kLongestGgufName));
    }
    if (shape.size() > kMostGgufDims) {
      throw Error(ErrorKind::kData,
                  fmt::format("gguf: tensor '{}' has {} dimensions, ggml takes {}; export --to packed", name,
                              shape.size(), kMostGgufDims));
    }
    tensors_.push_back({name, type, shape, std::move(data)});
  }

  void AddWhole(const std::string& name, const torch::Tensor& value) {
    if (value.numel() == 0) return;  // ggml has no empty tensors
    const torch::Tensor whole = value.contiguous();
    Add(name, GgufType(name, whole.scalar_type()), whole.sizes().vec(),
        {static_cast<const char*>(whole.data_ptr()), whole.nbytes()});
  }

  void AddText(const std::string& key, const std::string& text) {
    constexpr std::uint32_t kText = 8;
    AppendText(pairs_, key);
    AppendRaw(pairs_, kText);
    AppendText(pairs_, text);
    ++pair_count_;
  }

  void AddNumber(const std::string& key, std::uint32_t value) {
    constexpr std::uint32_t kUint32 = 4;
    AppendText(pairs_, key);
    AppendRaw(pairs_, kUint32);
    AppendRaw(pairs_, value);
    ++pair_count_;
  }

  [[nodiscard]] std::string Bytes() const {
    std::string bytes = "GGUF";
    AppendRaw(bytes, kGgufVersion);
    AppendRaw(bytes, static_cast<std::uint64_t>(tensors_.size()));
    AppendRaw(bytes, pair_count_);
    bytes += pairs_;
    std::uint64_t offset = 0;
    for (const Tensor& tensor : tensors_) {
      AppendText(bytes, tensor.name);
      AppendRaw(bytes, static_cast<std::uint32_t>(std::max<std::size_t>(tensor.shape.size(), 1)));
      if (tensor.shape.empty()) AppendRaw(bytes, std::uint64_t{1});
      for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) {  // the innermost first
        AppendRaw(bytes, static_cast<std::uint64_t>(*size));
      }
      AppendRaw(bytes, static_cast<std::uint32_t>(tensor.type));
      AppendRaw(bytes, offset);
      offset += (tensor.data.size() + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
    }
    AppendPadding(bytes);
    for (const Tensor& tensor : tensors_) {
      bytes += tensor.data;
      AppendPadding(bytes);
    }
    return bytes;
  }

 private:
  struct Tensor {
    std::string name;
    gguf::Type type;
    std::vector<std::int64_t> shape;
    std::string data;
  };
  std::vector<Tensor> tensors_;
  std::string pairs_;
  std::uint64_t pair_count_ = 0;
};

struct BlockedWeight {
  gguf::Type type = gguf::Type::kF32;
  std::string bytes;
  bool scaled = false;  // the scales stand in the blocks
};

bool HasHalf(const gguf::BlockGrid& grid, float scale) {
  return gguf::IsHalf(grid.d * scale) && gguf::IsHalf(grid.m * scale);
}

// Blocks of rows with these scales in them. Empty where a value would differ.
std::optional<std::string> BlocksOf(const torch::Tensor& codes, const gguf::BlockGrid& grid,
                                    const torch::Tensor& scales, const torch::Tensor& wanted) {
  const std::int64_t rows = codes.size(0), columns = codes.size(1);
  std::string bytes;
  std::vector<std::int8_t> row(static_cast<std::size_t>(columns));
  const auto* code = codes.data_ptr<std::int8_t>();
  const auto* value = wanted.data_ptr<float>();
  for (std::int64_t r = 0; r < rows; ++r) {
    const float scale = scales.data_ptr<float>()[r], d = grid.d * scale, m = grid.m * scale;
    if (!HasHalf(grid, scale)) return std::nullopt;
    for (auto& q : row) {
      q = static_cast<std::int8_t>(grid.times * *code++ + grid.plus);
      const float made = gguf::ValueOf(grid.type, q, d, m);
      if (std::memcmp(&made, value++, sizeof made) != 0) return std::nullopt;
    }
    gguf::AppendRow(bytes, grid.type, row.data(), columns, d, m);
  }
  return bytes;
}

// A weight [out, in] with its scales along the rows; nothing where no block type holds it.
std::optional<BlockedWeight> BlocksFor(const QuantizedLayer& layer, torch::Tensor& scales) {
  const QuantizedTensor& block = layer.blocks.front();
  if (layer.blocks.size() != 1 || block.codes.dim() != 2 || block.channel_dim != 0) return std::nullopt;
  const gguf::BlockGrid grid = gguf::GridFor(block.bits, block.offset != 0.0F, block.codes.size(1));
  if (grid.type == gguf::Type::kF32) return std::nullopt;
  const torch::Tensor codes = block.codes.contiguous();
  scales = block.scales.expand({codes.size(0)}).contiguous();
  const torch::Tensor values = layer.Values();
  if (auto bytes = BlocksOf(codes, grid, scales, values)) return BlockedWeight{grid.type, std::move(*bytes), true};
  const torch::Tensor unscaled = codes.to(torch::kFloat32) + block.offset;
  auto bytes = BlocksOf(codes, grid, torch::ones_like(scales), unscaled);
  const torch::Tensor product = (unscaled * scales.unsqueeze(1)).contiguous();
  const bool same = std::memcmp(product.data_ptr(), values.data_ptr(), values.nbytes()) == 0;
  if (!bytes || !same) return std::nullopt;
  return BlockedWeight{grid.type, std::move(*bytes), false};
}

}  // namespace

// Block types without an offset, whose bytes are those of the width: the others hold some grids too, but take more.
// What follows from rows of 128 or 256 is in gguf_blocks.h. A block has a scale in float16.
HeldLayer GgufHolds(const Layer& layer) {
  if (layer.shape.size() != 2 || layer.output_dim != 0) {
    return {{}, "gguf has blocks for weights [out, in] of linear layers"};
  }
  if (const std::string scales = layer.parameter + kScaleEnding; scales.size() > kLongestGgufName) {
    return {{}, fmt::format("gguf: the name '{}' would have more than {} characters", scales, kLongestGgufName)};
  }
  ConsumerLimits limits{.zero = {}, .half = {}, .float16_scales = true, .activations = false};
  for (int bits = 1; bits <= 8; ++bits) {
    for (const bool half : {false, true}) {
      if (gguf::StoredBits(gguf::GridFor(bits, half, layer.shape[1])) == bits) {
        (half ? limits.half : limits.zero).push_back(bits);
      }
    }
  }
  if (limits.zero.empty())
    return {{}, fmt::format("gguf has blocks for rows of 32 numbers, and these have {}", layer.shape[1])};
  return {limits, ""};
}

void ExportGguf(const ExportInputs& inputs, const ExportFiles& files) {
  const torch::NoGradGuard no_grad;
  const QuantizedNetwork& network = inputs.network;
  GgufFile file;
  file.AddText("general.architecture", "bitplan");
  file.AddText("general.name", inputs.plan.model.name);
  file.AddText("general.quantized_by", std::string("bitplan ") + BITPLAN_VERSION);
  file.AddNumber("general.quantization_version", kQuantizationVersion);
  file.AddNumber("general.alignment", kGgufAlignment);
  file.AddText("bitplan.plan", network.plan);
  for (const QuantizedLayer& layer : network.layers) {
    torch::Tensor scales;
    auto blocks = BlocksFor(layer, scales);
    if (!blocks) {
      file.AddWhole(layer.parameter, layer.Values());
      continue;
    }
    file.Add(layer.parameter, blocks->type, layer.shape(), std::move(blocks->bytes));
    if (!blocks->scaled) file.AddWhole(layer.parameter + kScaleEnding, scales);
  }
  for (const auto& [path, value] : network.others) file.AddWhole(path, value);
  WriteFileAtomically(files.first, file.Bytes());
}

}  // namespace bitplan
