// C99 for firmware: packed codes, scales and everything else as constant arrays, and a function that unpacks them.
// docs/formats.md describes the two files. Numbers are hexadecimal floats, which are exact.
// Source: ISO/IEC 9899:1999 (6.4.4.2 hexadecimal constants, 7.18 <stdint.h>, 7.12 INFINITY and NAN).
#include <fmt/format.h>
#include <torch/types.h>

#include <cctype>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "bitplan/quantizers/packing.h"

namespace bitplan {
namespace {

constexpr std::size_t kLongestLine = 120;
constexpr std::int64_t kMostWeights = std::numeric_limits<std::uint32_t>::max();  // counts are uint32_t

// Letters, digits and underscores; never a digit first.
std::string CWord(const std::string& text) {
  std::string word;
  for (const unsigned char c : text) word += std::isalnum(c) != 0 && c < 0x80 ? static_cast<char>(c) : '_';
  if (word.empty() || std::isdigit(static_cast<unsigned char>(word.front())) != 0) word.insert(0, "n");
  return word;
}

std::string Upper(std::string word) {
  for (char& c : word) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return word;
}

// Text within "...", or within a comment: printable ASCII, no escapes, no end of a comment.
std::string CText(const std::string& text) {
  std::string safe;
  for (const unsigned char c : text) {
    safe += c < 0x20 || c > 0x7E || c == '"' || c == '\\' || c == '*' || c == '?' ? '_' : static_cast<char>(c);
  }
  return safe;
}

std::string CReal(double value, const char* ending) {
  if (std::isnan(value)) return "NAN";
  if (std::isinf(value)) return value > 0 ? "INFINITY" : "-INFINITY";
  return fmt::format("{:a}{}", value, ending);
}

std::string CNumber(float value) { return CReal(value, "f"); }
std::string CNumber(double value) { return CReal(value, ""); }
std::string CNumber(std::int64_t value) {
  if (value == std::numeric_limits<std::int64_t>::min()) return "(-INT64_C(9223372036854775807) - 1)";
  return fmt::format("INT64_C({})", value);
}
std::string CNumber(std::int32_t value) {
  return value == std::numeric_limits<std::int32_t>::min() ? "(-2147483647 - 1)" : fmt::format("{}", value);
}
template <typename Small>
std::string CNumber(Small value) {
  return fmt::format("{}", static_cast<int>(value));
}

template <typename Value>
std::string CList(const Value* values, std::int64_t count) {
  std::string text, line = "   ";
  for (std::int64_t i = 0; i < count; ++i) {
    const std::string number = CNumber(values[i]) + ",";
    if (line.size() + 1 + number.size() > kLongestLine) {
      text += line + "\n";
      line = "   ";
    }
    line += " " + number;
  }
  return text + line + "\n";
}

struct CType {
  const char* name;
  std::string (*list)(const torch::Tensor& tensor);  // contiguous
};

template <typename Value, typename Stored = Value>
std::string CListOf(const torch::Tensor& tensor) {
  return CList(static_cast<const Stored*>(tensor.data_ptr()), tensor.numel());
}

CType CTypeOf(const std::string& name, torch::ScalarType type) {
  switch (type) {
    case torch::kFloat32:
      return {"float", CListOf<float>};
    case torch::kFloat64:
      return {"double", CListOf<double>};
    case torch::kInt64:
      return {"int64_t", CListOf<std::int64_t>};
    case torch::kInt32:
      return {"int32_t", CListOf<std::int32_t>};
    case torch::kInt16:
      return {"int16_t", CListOf<std::int16_t>};
    case torch::kInt8:
      return {"int8_t", CListOf<std::int8_t>};
    case torch::kUInt8:
    case torch::kBool:
      return {"uint8_t", CListOf<std::uint8_t>};
    default:
      break;
  }
  throw Error(ErrorKind::kData,
              fmt::format("c: tensor '{}' is of type {}, which C99 has no name for; convert the model to float32 and "
                          "run the recipe again, or export --to packed",
                          name, c10::toString(type)));
}

// One file is the text of its arrays, the other what of them has a name outside.
class CSource {
 public:
  explicit CSource(const std::string& stem) : prefix_(CWord(stem)) { names_.insert(prefix_); }

  void AddWeights(const QuantizedNetwork& network);
  void AddOthers(const QuantizedNetwork& network);
  [[nodiscard]] std::string Header(const ExportInputs& inputs, const std::string& id) const;
  [[nodiscard]] std::string Body(const std::string& header, const std::string& id) const;
  [[nodiscard]] std::string Content() const { return constants_ + arrays_ + declarations_; }

 private:
  std::string Unique(const std::string& path) {
    const std::string wish = prefix_ + "_" + CWord(path);
    std::string name = wish;
    for (int ending = 2; !names_.insert(name).second; ++ending) name = fmt::format("{}_{}", wish, ending);
    return name;
  }
  void AddWeight(const QuantizedLayer& layer, std::size_t index);

  std::string prefix_;
  std::set<std::string> names_;
  std::map<std::string, std::string> words_;  // attribute path -> name in C
  std::string constants_;                     // of the enum in the header
  std::string declarations_;
  std::string arrays_;
  std::string table_;
  std::size_t weights_ = 0;
};

void CSource::AddWeight(const QuantizedLayer& layer, std::size_t index) {
  const std::string word = Unique(layer.parameter);
  words_[layer.parameter] = word;
  const auto shape = layer.shape();
  const auto channel_dim = static_cast<std::size_t>(layer.blocks.front().channel_dim);
  std::int64_t outer = 1, inner = 1;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (d < channel_dim) outer *= shape[d];
    if (d > channel_dim) inner *= shape[d];
  }
  if (outer * inner * shape[channel_dim] > kMostWeights) {
    throw Error(ErrorKind::kData, "c: layer " + layer.name +
                                      " has more than 4,294,967,295 weights, which the header cannot count; export "
                                      "--to packed");
  }
  std::string blocks;
  for (std::size_t k = 0; k < layer.blocks.size(); ++k) {
    const QuantizedTensor& block = layer.blocks[k];
    std::string codes = "0", scales = "0";
    if (block.bits > 0 && block.codes.numel() > 0) {
      codes = Unique(fmt::format("codes_{}_{}", index, k));
      scales = Unique(fmt::format("scales_{}_{}", index, k));
      const std::string packed = PackCodes(block);
      arrays_ += fmt::format(
          "\nstatic const uint8_t {}[{}] = {{\n{}}};\n", codes, packed.size(),
          CList(reinterpret_cast<const std::uint8_t*>(packed.data()), static_cast<std::int64_t>(packed.size())));
      const torch::Tensor all = block.scales.contiguous();
      arrays_ += fmt::format("static const float {}[{}] = {{\n{}}};\n", scales, all.numel(),
                             CList(all.data_ptr<float>(), all.numel()));
    }
    blocks +=
        fmt::format("    {{{}, {}, {}u, {}u, {}, {}}},\n", block.bits, block.offset != 0.0F ? 1 : 0,
                    block.codes.size(block.channel_dim), block.bits > 0 ? block.scales.numel() : 0, codes, scales);
  }
  const std::string list = Unique(fmt::format("blocks_{}", index));
  arrays_ += fmt::format("static const {}_block {}[{}] = {{\n{}}};\n", prefix_, list, layer.blocks.size(), blocks);
  constants_ += fmt::format("  {} = {}, /* {}: {} */\n", word, index, CText(layer.parameter), fmt::join(shape, " x "));
  table_ += fmt::format("    {{\"{}\", {}u, {}u, {}u, {}u, {}}},\n", CText(layer.parameter), outer, shape[channel_dim],
                        inner, layer.blocks.size(), list);
}

void CSource::AddWeights(const QuantizedNetwork& network) {
  for (const char* own : {"weight", "block", "weights", "count", "code", "size", "unpack", "H", "ID"}) {
    names_.insert(prefix_ + "_" + own);
  }
  for (const QuantizedLayer& layer : network.layers) AddWeight(layer, weights_++);
}

void CSource::AddOthers(const QuantizedNetwork& network) {
  for (const auto& [path, value] : network.others) {
    const CType type = CTypeOf(path, value.scalar_type());
    if (value.numel() == 0) continue;  // C has no empty arrays
    const std::string word = Unique(path);
    words_[path] = word;
    const std::string what = fmt::format("const {} {}[{}]", type.name, word, value.numel());
    declarations_ += fmt::format("extern {}; /* {}: {} */\n", what, CText(path),
                                 value.dim() == 0 ? "one number" : fmt::format("{}", fmt::join(value.sizes(), " x ")));
    arrays_ += fmt::format("\n{} = {{\n{}}};\n", what, type.list(value.contiguous()));
  }
  for (const auto& [path, source] : network.tied) {
    const auto same = words_.find(source);
    if (same == words_.end()) continue;
    declarations_ += fmt::format("#define {} {} /* {}: the same tensor */\n", Unique(path), same->second, CText(path));
  }
}

// P stands for the prefix.
std::string WithPrefix(std::string text, const std::string& prefix) {
  for (auto at = text.find("P_"); at != std::string::npos; at = text.find("P_", at + prefix.size())) {
    text.replace(at, 1, prefix);
  }
  return text;
}

constexpr char kTypesInC[] = R"(
/* Output channels of one width and one grid. Code i takes the bits i*bits .. i*bits + bits - 1 of `codes`, counted from
   the lowest bit of the first byte, plus 2^(bits-1). Its weight is scale * (code + offset): one product in float. */
typedef struct {
  uint8_t bits;         /* 0..8; 0: all weights are zero, there are no codes and no scales */
  uint8_t half;         /* the offset: 0 for 0, 1 for 1/2 */
  uint32_t channels;    /* output channels */
  uint32_t scale_count; /* as many as channels, or 1 for all */
  const uint8_t *codes;
  const float *scales;
} P_block;

/* A weight lies as [outer][channels][inner], as in the model; its blocks follow one another along the channels. */
typedef struct {
  const char *name;
  uint32_t outer, channels, inner;
  uint32_t block_count;
  const P_block *blocks;
} P_weight;
)";

constexpr char kFunctionsDeclared[] = R"(
/* How many numbers a weight has. */
uint32_t P_size(const P_weight *weight);
/* Code `index` of a block, -2^(bits-1) .. 2^(bits-1) - 1; 0 at 0 bits. Codes lie as [outer][channels][inner]. */
int P_code(const P_block *block, uint32_t index);
/* Writes all P_size(weight) numbers. */
void P_unpack(const P_weight *weight, float *values);
)";

constexpr char kFunctions[] = R"(
uint32_t P_size(const P_weight *weight) { return weight->outer * weight->channels * weight->inner; }

int P_code(const P_block *block, uint32_t index) {
  const unsigned bits = block->bits;
  const unsigned bit = (unsigned)(index % 8u) * bits;
  const uint8_t *bytes;
  unsigned word;
  if (bits == 0u) return 0;
  bytes = block->codes + (size_t)(index / 8u) * bits + bit / 8u;
  word = (unsigned)bytes[0] >> (bit % 8u);
  if (bit % 8u + bits > 8u) word |= (unsigned)bytes[1] << (8u - bit % 8u);
  return (int)(word & ((1u << bits) - 1u)) - (int)(1u << (bits - 1u));
}

void P_unpack(const P_weight *weight, float *values) {
  uint32_t first = 0, k, o, c, i;
  for (k = 0; k < weight->block_count; ++k) {
    const P_block *block = &weight->blocks[k];
    const float offset = block->half ? 0.5f : 0.0f;
    uint32_t index = 0;
    for (o = 0; o < weight->outer; ++o) {
      for (c = 0; c < block->channels; ++c) {
        float *row = values + ((size_t)o * weight->channels + first + c) * weight->inner;
        float scale = 0.0f;
        if (block->scale_count > 0) scale = block->scales[block->scale_count == 1u ? 0u : c];
        for (i = 0; i < weight->inner; ++i) row[i] = scale * ((float)P_code(block, index++) + offset);
      }
    }
    first += block->channels;
  }
}
)";

std::string CSource::Header(const ExportInputs& inputs, const std::string& id) const {
  const std::string guard = Upper(prefix_) + "_H";
  std::string text = fmt::format(
      "/* The weights of {}: {} bytes of codes, scales and widths, {} bytes in float. Made by bitplan {}. */\n"
      "#ifndef {}\n#define {}\n\n#include <stddef.h>\n#include <stdint.h>\n\n"
      "/* The source file must be of the same export. */\n#define {}_ID 0x{}\n",
      CText(inputs.plan.model.name), inputs.network.payload_bytes(), inputs.network.float_bytes(), BITPLAN_VERSION,
      guard, guard, Upper(prefix_), id);
  text += WithPrefix(kTypesInC, prefix_);
  if (weights_ > 0) {
    text += fmt::format("\n/* Weights by index: attribute path and shape. */\nenum {{\n{}  {}_count = {}\n}};\n\n",
                        constants_, prefix_, weights_);
    text += fmt::format("extern const {0}_weight {0}_weights[{1}];\n", prefix_, weights_);
  }
  text += WithPrefix(kFunctionsDeclared, prefix_);
  if (!declarations_.empty()) {
    text += "\n/* Everything else that the model holds, in the order of its numbers: attribute path and shape. */\n" +
            declarations_;
  }
  return text + fmt::format("\n#endif /* {} */\n", guard);
}

std::string CSource::Body(const std::string& header, const std::string& id) const {
  std::string text = fmt::format("#include \"{}\"\n", header);
  if (arrays_.find("INFINITY") != std::string::npos || arrays_.find("NAN") != std::string::npos) {
    text += "\n#include <math.h>\n";
  }
  text += fmt::format("\n#if {}_ID != 0x{}\n#error \"{} is of another export; copy both files\"\n#endif\n",
                      Upper(prefix_), id, header);
  text += arrays_;
  if (weights_ > 0) {
    text += fmt::format("\nconst {0}_weight {0}_weights[{1}] = {{\n{2}}};\n", prefix_, weights_, table_);
  }
  return text + WithPrefix(kFunctions, prefix_);
}

}  // namespace

// Every weight; scales of activations have no place.
HeldLayer CHolds(const Layer&) { return {.limits = {.activations = false}}; }

void ExportC(const ExportInputs& inputs, const ExportFiles& files) {
  const std::filesystem::path name = files.name.empty() ? "quantized.c" : files.name;
  CSource source(name.stem().string());
  source.AddWeights(inputs.network);
  source.AddOthers(inputs.network);
  constexpr std::size_t kIdDigits = 8;
  const std::string id = Sha256Hex(source.Content()).substr(0, kIdDigits) + "u";
  const std::string header = CText(name.stem().string() + ".h");
  WriteFileAtomically(files.second, source.Header(inputs, id));
  WriteFileAtomically(files.first, source.Body(header, id));
}

}  // namespace bitplan
