#include <cstring>

#include "bitplan/exporters/quantized_network.h"
#include "bitplan/io/files.h"
#include "fuzz/targets.h"
#include "io/safetensors.h"

#include <openssl/evp.h>
#include <zlib.h>

namespace bitplan::fuzz {
namespace {

std::string TextInMetadata(std::string_view text) {
  uLongf size = compressBound(text.size());
  std::string deflated(size, '\0');
  compress(reinterpret_cast<Bytef*>(deflated.data()), &size, reinterpret_cast<const Bytef*>(text.data()), text.size());
  std::string base64((size + 2) / 3 * 4 + 1, '\0');
  base64.resize(static_cast<std::size_t>(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(base64.data()),
                                                         reinterpret_cast<const unsigned char*>(deflated.data()),
                                                         static_cast<int>(size))));
  return base64;
}

}  // namespace

void FuzzSafetensors(std::string_view bytes) {
  const std::string file(bytes);
  const auto parsed = safetensors::Parse(file);
  std::size_t sum = 0;
  for (const auto& [name, tensor] : parsed.tensors) {
    for (const char byte : tensor.bytes) sum += static_cast<unsigned char>(byte);  // all of it is there
  }
  (void)sum;
}

void FuzzPacked(std::string_view bytes) { (void)ParseQuantizedNetwork(std::string(bytes), "packed.safetensors"); }

// Two texts, each with its length in two bytes before it, low one first: the index, and the JSON of the tensors; then
// their bytes.
void FuzzPackedIndex(std::string_view bytes) {
  const auto take = [&] {
    if (bytes.size() < 2) return std::string_view();
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    const std::string_view text = bytes.substr(2, at(0) + 256U * at(1));
    bytes.remove_prefix(2 + text.size());
    return text;
  };
  const std::string index = TextInMetadata(take());
  const std::string_view tensors = take();  // "codes": {...}, "bitplan:widths": {...}
  const std::string hash =
      Sha256().Update(bytes.data(), bytes.size()).Update(index.data(), index.size()).Update("", 0).Hex();
  std::string header = R"({"__metadata__":{"format":"bitplan","version":"1","index":")" + index + R"(","sha256":")" +
                       hash + "\"}" + (tensors.empty() ? "" : ",") + std::string(tensors) + "}";
  const std::uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  (void)ParseQuantizedNetwork((file + header).append(bytes), "packed.safetensors");
}

}  // namespace bitplan::fuzz
