#include "models/stored_tensors.h"

#include <fmt/format.h>
#include <torch/csrc/jit/ir/constants.h>

#include "models/inlined_graph.h"

namespace bitplan {
namespace {

// What two views of one tensor share; a tensor without storage (sparse, MKL-DNN) is known by itself.
const void* AddressOf(const torch::Tensor& tensor) {
  return tensor.has_storage() ? tensor.data_ptr() : static_cast<const void*>(tensor.unsafeGetTensorImpl());
}

const void* StorageOf(const torch::Tensor& tensor) {
  return tensor.has_storage() ? static_cast<const void*>(tensor.storage().unsafeGetStorageImpl()) : AddressOf(tensor);
}

bool SameData(const torch::Tensor& a, const torch::Tensor& b) {
  return a.defined() && AddressOf(a) == AddressOf(b) && a.numel() == b.numel();
}

// Whether the first number of `part` is one of `whole`.
bool BeginsIn(const torch::Tensor& part, const torch::Tensor& whole) {
  std::int64_t last = 0;
  for (std::int64_t d = 0; d < whole.dim(); ++d) last += (whole.size(d) - 1) * whole.stride(d);
  const auto* const begin = static_cast<const char*>(AddressOf(whole));
  const auto* const at = static_cast<const char*>(AddressOf(part));
  return begin <= at && at <= begin + last * whole.element_size();
}

}  // namespace

void ForEachTensor(const c10::IValue& value, const std::string& path,
                   const std::function<void(const std::string&, const torch::Tensor&)>& visit) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) visit(path, value.toTensor());
  } else if (value.isList()) {
    std::size_t index = 0;
    for (const c10::IValue& item : value.toListRef()) ForEachTensor(item, fmt::format("{}[{}]", path, index++), visit);
  } else if (value.isTuple()) {
    std::size_t index = 0;
    for (const c10::IValue& item : value.toTupleRef().elements()) {
      ForEachTensor(item, fmt::format("{}[{}]", path, index++), visit);
    }
  } else if (value.isGenericDict()) {
    std::size_t index = 0;
    for (const auto& item : value.toGenericDict()) {
      const c10::IValue& key = item.key();
      const std::string name = key.isString() ? key.toStringRef() : std::to_string(index);
      ForEachTensor(item.value(), fmt::format("{}[{}]", path, name), visit);
      ++index;
    }
  } else if (value.isObject() && !value.isModule()) {
    const auto object = value.toObject();
    for (std::size_t slot = 0; slot < object->slots().size(); ++slot) {
      ForEachTensor(object->getSlot(slot), path + "." + object->type()->getAttributeName(slot), visit);
    }
  }
}

bool ShareStorage(const torch::Tensor& a, const torch::Tensor& b) { return StorageOf(a) == StorageOf(b); }

StoredTensors::StoredTensors(const torch::jit::Module& module, const torch::jit::Graph& graph) {
  for (const auto& entry : module.named_parameters()) Add(entry.name, entry.value, TensorHome::kParameter);
  for (const auto& entry : module.named_attributes()) {
    if (entry.value.isTensor() && entry.value.toTensor().defined()) {
      Add(entry.name, entry.value.toTensor(), TensorHome::kBuffer);
    }
  }
  for (const auto& entry : module.named_attributes()) {
    if (entry.value.isTensor() || entry.value.isModule()) continue;
    ForEachTensor(entry.value, entry.name, [&](const std::string& path, const torch::Tensor& value) {
      if (const auto known = Find(value); known && SameData(value, tensors_[*known].value)) {
        tensors_[*known].inside = path;
      } else {
        Add(path, value, TensorHome::kInside);
      }
    });
  }
  ForEachNode(*graph.block(), [&](const torch::jit::Node& node) {
    if (node.kind() != c10::prim::Constant || node.outputs().size() != 1) return;
    const auto constant = torch::jit::toIValue(node.output());
    if (!constant) return;
    ForEachTensor(*constant, "", [&](const std::string&, const torch::Tensor& value) {
      if (value.dim() > 0) Add(fmt::format("constant {}", constants_ + 1), value, TensorHome::kConstant);
    });
  });
}

void StoredTensors::Add(const std::string& path, const torch::Tensor& value, TensorHome home) {
  if (value.numel() == 0) return;
  const auto known = Find(value);
  if (known && SameData(value, tensors_[*known].value)) return;
  by_storage_[StorageOf(value)].push_back(tensors_.size());
  tensors_.push_back({.path = path, .value = value, .home = home});
  if (home == TensorHome::kConstant) ++constants_;
}

std::optional<std::size_t> StoredTensors::Find(const torch::Tensor& tensor) const {
  const auto sharing = by_storage_.find(StorageOf(tensor));
  if (sharing == by_storage_.end()) return std::nullopt;
  std::optional<std::size_t> found;
  for (const std::size_t index : sharing->second) {
    const torch::Tensor& value = tensors_[index].value;
    if (SameData(tensor, value)) return index;
    if (BeginsIn(tensor, value) && (!found || value.numel() < tensors_[*found].value.numel())) found = index;
  }
  return found;
}

}  // namespace bitplan
