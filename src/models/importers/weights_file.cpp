// Weights that come without their network.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/one_line.h"
#include "bitplan/core/suggest.h"
#include "bitplan/io/files.h"
#include "bitplan/models/network.h"
#include "io/json_text.h"
#include "io/safetensors.h"
#include "models/importers/state_dict.h"

namespace bitplan {
namespace {

// As a message shows it: names of a file may hold any bytes.
std::string Shown(const std::string& text) { return ValidUtf8(OneLine(text)); }

using TensorsByName = std::map<std::string, torch::Tensor>;

TensorsByName ReadSafetensors(const std::filesystem::path& file, const std::string& what) {
  static const std::map<std::string, torch::ScalarType> types = {
      {"F64", torch::kDouble}, {"F32", torch::kFloat}, {"F16", torch::kHalf},  {"BF16", torch::kBFloat16},
      {"I64", torch::kLong},   {"I32", torch::kInt},   {"I16", torch::kShort}, {"I8", torch::kChar},
      {"U8", torch::kByte},    {"BOOL", torch::kBool}};
  const std::string bytes = ReadFile(file, "weights");
  TensorsByName tensors;
  try {
    const auto parsed = safetensors::Parse(bytes);
    for (const auto& [name, stored] : parsed.tensors) {
      const auto type = types.find(stored.type);
      if (type == types.end()) {
        throw Error(ErrorKind::kData, "tensor '" + name + "' has numbers of the type " + stored.type);
      }
      torch::Tensor tensor = torch::empty(stored.shape, type->second);
      if (!stored.bytes.empty()) std::memcpy(tensor.data_ptr(), stored.bytes.data(), stored.bytes.size());
      tensors[name] = tensor;
    }
  } catch (const Error& error) {
    throw Error(ErrorKind::kData,
                Shown(what + " are neither safetensors nor a state dict of torch.save: " + error.what()));
  }
  return tensors;
}

TensorsByName ReadWeights(const std::filesystem::path& file, const std::string& what) {
  std::string begin(4, '\0');
  std::ifstream in(file, std::ios::binary);
  in.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  if (begin == "PK\3\4") return ReadStateDict(file, what);
  if (begin.starts_with("\x80\x02")) {
    throw Error(ErrorKind::kData, what +
                                      " has the form that PyTorch wrote before 1.6; load it in Python and write it "
                                      "again with torch.save(state_dict, path)");
  }
  return ReadSafetensors(file, what);
}

// Prefixes that wrappers put before every name.
void RemoveWrappers(TensorsByName& tensors, const std::set<std::string>& known) {
  for (const std::string prefix : {"module.", "_orig_mod.", "module."}) {  // in any order
    const bool everywhere = std::all_of(tensors.begin(), tensors.end(), [&](const auto& tensor) {
      return tensor.first.starts_with(prefix) && !known.contains(tensor.first);
    });
    if (!everywhere) continue;
    TensorsByName shorter;
    for (const auto& [name, tensor] : tensors) shorter[name.substr(prefix.size())] = tensor;
    tensors = std::move(shorter);
  }
}

std::string ShapeText(const torch::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ", ")); }

// Names that a message shows: the first few.
std::string Some(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::vector<std::string> shown;
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) shown.push_back("'" + names[i] + "'");
  if (names.size() > kShown) shown.push_back(fmt::format("{} more", names.size() - kShown));
  return fmt::format("{}", fmt::join(shown, ", "));
}

void Lay(const torch::Tensor& from, const torch::Tensor& to, const std::string& name, const std::string& what) {
  if (from.sizes() != to.sizes()) {
    throw Error(ErrorKind::kData, Shown(fmt::format("{}: '{}' has the shape {}, in the model {}", what, name,
                                                    ShapeText(from), ShapeText(to))));
  }
  if (from.is_floating_point() != to.is_floating_point()) {
    throw Error(ErrorKind::kData,
                Shown(fmt::format("{}: '{}' holds {}, in the model {}; give the weights of the float network", what,
                                  name, c10::toString(from.scalar_type()), c10::toString(to.scalar_type()))));
  }
  to.copy_(from);
  if (to.is_floating_point() && !to.isfinite().all().item<bool>()) {
    throw Error(ErrorKind::kData,
                Shown(fmt::format("{}: '{}' holds NaN, or values that are infinite in float32", what, name)));
  }
  if (name.ends_with("running_var") && to.lt(0.0).any().item<bool>()) {
    throw Error(ErrorKind::kData, Shown(fmt::format("{}: '{}' holds a variance below zero", what, name)));
  }
}

}  // namespace

void LayWeights(torch::jit::Module& module, const std::filesystem::path& file) {
  const std::string what = "weights '" + file.string() + "'";
  std::error_code status;
  if (!std::filesystem::is_regular_file(file, status)) {
    const char* const why = std::filesystem::exists(file, status) ? " is no file" : " not found";
    throw Error(ErrorKind::kNotFound, what + why + "; give the path of a safetensors file or of a state dict");
  }
  if (std::filesystem::file_size(file, status) == 0) throw Error(ErrorKind::kData, what + " is empty");
  TensorsByName tensors = ReadWeights(file, what);

  const torch::NoGradGuard no_grad;
  std::map<std::string, torch::Tensor> places;
  std::set<std::string> known, parameters;
  for (const auto& entry : module.named_parameters()) {
    places[entry.name] = entry.value;
    parameters.insert(entry.name);
  }
  for (const auto& entry : module.named_buffers()) places[entry.name] = entry.value;
  for (const auto& [name, tensor] : places) known.insert(name);
  RemoveWrappers(tensors, known);

  std::vector<std::string> strange, missing;
  std::map<const void*, std::string> laid;  // what is tied may be in the file under one of its names
  for (const auto& [name, tensor] : tensors) {
    if (name.ends_with("num_batches_tracked")) continue;  // a counter of training
    const auto place = places.find(name);
    if (place == places.end()) {
      strange.push_back(name);
      continue;
    }
    const auto [first, fresh] = laid.try_emplace(place->second.data_ptr(), name);
    const torch::Tensor before = fresh ? torch::Tensor() : place->second.clone();
    Lay(tensor, place->second, name, what);
    if (fresh || before.equal(place->second)) continue;
    throw Error(ErrorKind::kData,
                Shown(fmt::format("{}: '{}' and '{}' differ, and are one tensor in the model; give a model in which "
                                  "they are two",
                                  what, first->second, name)));
  }
  if (!strange.empty()) {
    const auto nearest = NearestName(strange.front(), {known.begin(), known.end()});
    throw Error(ErrorKind::kData,
                Shown(fmt::format("{} holds {}, which the model has not{}; `bitplan inspect` lists the model's layers",
                                  what, Some(strange), nearest.empty() ? "" : " (nearest: '" + nearest + "')")));
  }
  for (const auto& [name, tensor] : places) {
    // A buffer may be one that Python computes and does not save; statistics of batch norms are saved.
    const bool needed = parameters.contains(name) || name.ends_with("running_mean") || name.ends_with("running_var");
    if (needed && !laid.contains(tensor.data_ptr())) missing.push_back(name);
  }
  if (!missing.empty()) {
    throw Error(ErrorKind::kData, Shown(fmt::format("{} lacks {} of the model; give the weights of the whole network",
                                                    what, Some(missing))));
  }
}

}  // namespace bitplan
