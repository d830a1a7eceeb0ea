#include "io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "bitplan/core/error.h"
#include "bitplan/core/one_line.h"
#include "io/json_text.h"

static_assert(std::endian::native == std::endian::little, "numbers of the file are those of the memory");

namespace bitplan::safetensors {
namespace {

constexpr std::uint64_t kLongestHeader = 100'000'000;  // bytes; the format's own bound
constexpr std::size_t kAlignment = 8;

[[noreturn]] void Refuse(const std::string& why) { throw Error(ErrorKind::kData, OneLine(why)); }

std::int64_t Whole(const nlohmann::json& value) {
  if (!value.is_number_unsigned()) Refuse("a size in its header is no whole number");
  const auto number = value.get<std::uint64_t>();
  if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) Refuse("a size is too large");
  return static_cast<std::int64_t>(number);
}

}  // namespace

std::int64_t TypeBytes(std::string_view type) {
  static const std::map<std::string_view, std::int64_t> bytes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
      {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"I64", 8},     {"U64", 8}, {"F64", 8}};
  const auto found = bytes.find(type);
  return found == bytes.end() ? 0 : found->second;
}

std::string Header(const std::vector<Entry>& entries, const Metadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  auto& notes = header["__metadata__"] = nlohmann::ordered_json::object();
  for (const auto& [key, value] : metadata) notes[key] = value;
  std::int64_t at = 0;
  for (const Entry& entry : entries) {
    header[entry.name] = {{"dtype", entry.type}, {"shape", entry.shape}, {"data_offsets", {at, at + entry.bytes}}};
    at += entry.bytes;
  }
  std::string text = JsonText(header);
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

File Parse(const std::string& bytes) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof length) Refuse("it is too short for a safetensors file");
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kLongestHeader || length < 2 || bytes[sizeof length] != '{') Refuse("it is no safetensors file");
  if (length > bytes.size() - sizeof length) Refuse("it ends within its header");
  const std::string_view whole = bytes;
  const auto text = whole.substr(sizeof length, length);
  if (text.find('\0') != std::string_view::npos) Refuse("its header is no JSON object");  // where the parser would stop
  const auto header = nlohmann::json::parse(text, nullptr, false);
  if (!header.is_object()) Refuse("its header is no JSON object");
  File file;
  file.body = whole.substr(sizeof length + length);
  const auto size = static_cast<std::int64_t>(file.body.size());
  std::vector<std::pair<std::int64_t, std::int64_t>> places;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) Refuse("its metadata are no JSON object");
      for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) Refuse("its metadata hold something else than text");
        file.metadata[key] = text.get<std::string>();
      }
      continue;
    }
    const bool complete = value.is_object() && value.contains("dtype") && value["dtype"].is_string() &&
                          value.contains("shape") && value["shape"].is_array() && value.contains("data_offsets") &&
                          value["data_offsets"].is_array() && value["data_offsets"].size() == 2;
    if (!complete) Refuse("its header lacks type, shape or place of a tensor");
    Tensor tensor;
    tensor.type = value["dtype"].get<std::string>();
    std::int64_t wanted = TypeBytes(tensor.type);
    if (wanted == 0) Refuse("it holds a tensor of the unknown type '" + tensor.type + "'");
    for (const auto& dimension : value["shape"]) {
      tensor.shape.push_back(Whole(dimension));
      if (__builtin_mul_overflow(wanted, tensor.shape.back(), &wanted)) Refuse("a tensor in its header is too large");
    }
    const std::int64_t begin = Whole(value["data_offsets"][0]), end = Whole(value["data_offsets"][1]);
    if (begin > end || end > size) Refuse("it is truncated: tensor '" + name + "' ends behind the file");
    if (end - begin != wanted) Refuse("tensor '" + name + "' has another length than its shape");
    tensor.bytes = file.body.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    places.emplace_back(begin, end);
    file.tensors[name] = std::move(tensor);
  }
  std::sort(places.begin(), places.end());
  std::int64_t at = 0;
  for (const auto& [begin, end] : places) {
    if (begin != at) Refuse("its tensors overlap or leave a gap");
    at = end;
  }
  if (at != size) Refuse("it holds bytes that belong to no tensor");
  return file;
}

}  // namespace bitplan::safetensors
