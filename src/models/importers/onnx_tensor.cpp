#include "models/importers/onnx_tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <system_error>
#include <vector>

#include "bitplan/core/error.h"

namespace bitplan::onnx_import {
namespace {

namespace fs = std::filesystem;

int BitsOf(ElementType type) {
  switch (type) {
    case ElementType::kUint2:
    case ElementType::kInt2:
      return 2;
    case ElementType::kUint4:
    case ElementType::kInt4:
      return 4;
    case ElementType::kUint8:
    case ElementType::kInt8:
    case ElementType::kBool:
      return 8;
    case ElementType::kUint16:
    case ElementType::kInt16:
    case ElementType::kHalf:
    case ElementType::kBfloat16:
      return 16;
    case ElementType::kDouble:
    case ElementType::kInt64:
    case ElementType::kUint64:
      return 64;
    default:
      return 32;
  }
}

bool IsSigned(ElementType type) { return type == ElementType::kInt2 || type == ElementType::kInt4; }

// One tensor of a file, for messages about it.
class TensorReader {
 public:
  TensorReader(const TensorField& field, const fs::path& model_file, const std::string& what)
      : field_(field), model_file_(model_file), what_(what), type_(static_cast<ElementType>(field.type)) {}

  torch::Tensor Read() {
    const auto torch_type = TorchType(field_.type);
    if (!torch_type) Refuse(fmt::format("has elements of type {}, which bitplan does not read", field_.type));
    count_ = Count();
    std::string outside;
    if (field_.is_external) outside = External();
    const std::string_view raw = field_.is_external ? std::string_view(outside) : field_.raw;
    const bool typed = raw.empty() && !field_.is_external;
    const torch::Tensor numbers = typed ? Typed() : Raw(raw);
    return numbers.to(*torch_type).reshape(field_.dims);
  }

 private:
  [[noreturn]] void Refuse(const std::string& why) const {
    throw Error(ErrorKind::kData, fmt::format("{}: tensor '{}' {}", what_, Shown(field_.name), why));
  }

  [[nodiscard]] std::int64_t Count() const {
    // LibTorch multiplies the sizes behind one of 0 too, for strides.
    std::int64_t count = 1, strides = 1;
    for (const std::int64_t size : field_.dims) {
      if (size < 0 || __builtin_mul_overflow(strides, std::max<std::int64_t>(size, 1), &strides)) {
        Refuse("has an impossible shape");
      }
      count *= size;
    }
    return count;
  }

  // How many bytes the numbers take in a file.
  [[nodiscard]] std::uint64_t ByteCount() const {
    const auto bits = static_cast<unsigned __int128>(count_) * static_cast<unsigned>(BitsOf(type_));
    return static_cast<std::uint64_t>(std::min<unsigned __int128>((bits + 7) / 8, ~std::uint64_t{0}));
  }

  void CheckCount(std::uint64_t found, std::uint64_t expected) const {
    if (found == expected) return;
    Refuse(fmt::format("has {} bytes where its shape [{}] takes {}", found, fmt::join(field_.dims, ", "), expected));
  }

  template <typename Number>
  torch::Tensor Copied(std::string_view raw, torch::ScalarType type) const {
    torch::Tensor tensor = torch::empty({count_}, type);
    if (!raw.empty()) std::memcpy(tensor.data_ptr(), raw.data(), raw.size());
    return tensor;
  }

  torch::Tensor Raw(std::string_view raw) const {
    CheckCount(raw.size(), ByteCount());
    switch (type_) {
      case ElementType::kUint2:
      case ElementType::kInt2:
      case ElementType::kUint4:
      case ElementType::kInt4:
        return Unpacked(raw);
      case ElementType::kFloat:
        return Copied<float>(raw, torch::kFloat);
      case ElementType::kDouble:
        return Copied<double>(raw, torch::kDouble);
      case ElementType::kHalf:
        return Copied<c10::Half>(raw, torch::kHalf);
      case ElementType::kBfloat16:
        return Copied<c10::BFloat16>(raw, torch::kBFloat16);
      case ElementType::kUint8:
        return Copied<std::uint8_t>(raw, torch::kUInt8);
      case ElementType::kInt8:
        return Copied<std::int8_t>(raw, torch::kInt8);
      case ElementType::kBool:
        return Copied<std::uint8_t>(raw, torch::kUInt8).ne(0);
      case ElementType::kInt16:
        return Copied<std::int16_t>(raw, torch::kInt16);
      case ElementType::kInt32:
        return Copied<std::int32_t>(raw, torch::kInt32);
      case ElementType::kUint16:
        return Copied<std::int16_t>(raw, torch::kInt16).to(torch::kInt64).bitwise_and(0xFFFF);
      case ElementType::kUint32:
        return Copied<std::int32_t>(raw, torch::kInt32).to(torch::kInt64).bitwise_and(std::int64_t{0xFFFFFFFF});
      default:
        return Copied<std::int64_t>(raw, torch::kInt64);
    }
  }

  // Two or four numbers a byte, the low bits first.
  torch::Tensor Unpacked(std::string_view raw) const {
    const int bits = BitsOf(type_);
    torch::Tensor tensor = torch::empty({count_}, torch::kInt8);
    auto* const numbers = tensor.data_ptr<std::int8_t>();
    for (std::int64_t i = 0; i < count_; ++i) {
      const auto byte = static_cast<unsigned char>(raw[static_cast<std::size_t>(i * bits / 8)]);
      const int code = byte >> (i * bits % 8) & ((1 << bits) - 1);
      const bool negative = IsSigned(type_) && code >= 1 << (bits - 1);
      numbers[i] = static_cast<std::int8_t>(negative ? code - (1 << bits) : code);
    }
    return tensor;
  }

  // The fields that hold numbers one by one; half-precision numbers stand there by their bits.
  torch::Tensor Typed() const {
    if (type_ == ElementType::kFloat) return Listed(field_.float_numbers, torch::kFloat);
    if (type_ == ElementType::kDouble) return Listed(field_.double_numbers, torch::kDouble);
    if (BitsOf(type_) < 8) {
      const std::uint64_t bytes = ByteCount();
      CheckCount(field_.numbers.size(), bytes);
      std::string raw;
      for (const std::int64_t number : field_.numbers) raw += static_cast<char>(number & 0xFF);
      return Unpacked(raw);
    }
    const torch::Tensor numbers = Listed(field_.numbers, torch::kInt64);
    if (type_ == ElementType::kHalf) return numbers.to(torch::kInt16).view(torch::kHalf);
    if (type_ == ElementType::kBfloat16) return numbers.to(torch::kInt16).view(torch::kBFloat16);
    return numbers;
  }

  template <typename Number>
  torch::Tensor Listed(const std::vector<Number>& numbers, torch::ScalarType type) const {
    if (numbers.size() != static_cast<std::uint64_t>(count_)) {
      Refuse(fmt::format("has {} numbers where its shape is [{}]", numbers.size(), fmt::join(field_.dims, ", ")));
    }
    torch::Tensor tensor = torch::empty({count_}, type);
    if (!numbers.empty()) std::memcpy(tensor.data_ptr(), numbers.data(), numbers.size() * sizeof(Number));
    return tensor;
  }

  [[nodiscard]] std::uint64_t Number(const std::string& key, std::uint64_t otherwise) const {
    const auto found = field_.external.find(key);
    if (found == field_.external.end()) return otherwise;
    std::uint64_t number = 0;
    const char* const end = found->second.data() + found->second.size();
    const auto [stop, error] = std::from_chars(found->second.data(), end, number);
    if (error != std::errc{} || stop != end) Refuse("does not say where its numbers lie in their own file");
    return number;
  }

  // A name inside the folder of the model, not above it and not behind a link that leads out.
  [[nodiscard]] fs::path ExternalFile() const {
    const auto found = field_.external.find("location");
    const fs::path location = found == field_.external.end() ? "" : found->second;
    bool inside = !location.empty() && location.is_relative();
    for (const fs::path& part : location) inside = inside && part != "..";
    if (!inside)
      Refuse(fmt::format("names the file '{}', which is not in the model's folder", Shown(location.string())));
    const fs::path folder = model_file_.has_parent_path() ? model_file_.parent_path() : fs::path(".");
    const fs::path file = folder / location;
    std::error_code status;
    if (!fs::is_regular_file(file, status)) {
      Refuse(fmt::format("lies in '{}', which is missing; keep it beside the model", Shown(file.string())));
    }
    const fs::path real = fs::canonical(file, status), home = fs::canonical(folder, status);
    const auto [end, unused] = std::mismatch(home.begin(), home.end(), real.begin(), real.end());
    if (end != home.end()) {
      Refuse(fmt::format("names the file '{}', a link that leads out of the model's folder", Shown(location.string())));
    }
    return file;
  }

  [[nodiscard]] std::string External() const {
    const fs::path file = ExternalFile();
    std::error_code status;
    const std::uint64_t offset = Number("offset", 0), size = fs::file_size(file, status);
    const std::uint64_t length = Number("length", offset <= size ? size - offset : 0);
    if (status || offset > size || length > size - offset)
      Refuse(fmt::format("lies beyond the end of '{}'", file.string()));
    CheckCount(length, ByteCount());  // before anything is allocated
    std::string bytes(length, '\0');
    std::ifstream in(file, std::ios::binary);
    in.seekg(static_cast<std::streamoff>(offset));
    in.read(bytes.data(), static_cast<std::streamsize>(length));
    if (!in) Refuse(fmt::format("cannot be read from '{}'", file.string()));
    return bytes;
  }

  const TensorField& field_;
  const fs::path& model_file_;
  const std::string& what_;
  ElementType type_;
  std::int64_t count_ = 0;
};

}  // namespace

std::optional<torch::ScalarType> TorchType(std::int64_t element_type) {
  switch (static_cast<ElementType>(element_type)) {
    case ElementType::kFloat:
    case ElementType::kHalf:
    case ElementType::kBfloat16:
    case ElementType::kDouble:
      return torch::kFloat;
    case ElementType::kInt8:
    case ElementType::kInt4:
    case ElementType::kInt2:
    case ElementType::kUint4:
    case ElementType::kUint2:
      return torch::kInt8;
    case ElementType::kUint8:
      return torch::kUInt8;
    case ElementType::kUint16:
    case ElementType::kInt16:
    case ElementType::kInt32:
    case ElementType::kUint32:
    case ElementType::kInt64:
    case ElementType::kUint64:
      return torch::kInt64;
    case ElementType::kBool:
      return torch::kBool;
    default:
      return std::nullopt;
  }
}

torch::Tensor TorchTensor(const TensorField& field, const fs::path& model_file, const std::string& what) {
  return TensorReader(field, model_file, what).Read();
}

}  // namespace bitplan::onnx_import
