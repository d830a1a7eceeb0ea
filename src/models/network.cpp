#include "bitplan/models/network.h"

#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <numeric>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "data/archive.h"
#include "models/importers/onnx_import.h"
#include "models/inlined_graph.h"
#include "models/torch_reason.h"
#include "models/weight_lists.h"

namespace bitplan {
namespace {

// The object that holds the last attribute of a path, and that attribute's name.
std::pair<torch::jit::Object, std::string> Owner(const torch::jit::Module& module, const std::string& path) {
  torch::jit::Object owner = module;
  std::size_t begin = 0;
  for (std::size_t dot = path.find('.'); dot != std::string::npos; begin = dot + 1, dot = path.find('.', begin)) {
    const std::string part = path.substr(begin, dot - begin);
    if (!owner.hasattr(part) || !owner.attr(part).isObject()) {
      throw Error(ErrorKind::kData, "the model has no tensor '" + path + "': '" + part + "' is not a submodule");
    }
    owner = torch::jit::Object(owner.attr(part).toObject());
  }
  const std::string name = path.substr(begin);
  if (!owner.hasattr(name)) throw Error(ErrorKind::kData, "the model has no tensor '" + path + "'");
  return {owner, name};
}

struct NamedTensor {
  std::string name;
  torch::Tensor value;
};

// Parameters, then every other tensor attribute, registered as a buffer or not, as the module names them.
std::vector<NamedTensor> Tensors(const torch::jit::Module& module) {
  std::vector<NamedTensor> result;
  std::set<std::string> names;
  for (const auto& entry : module.named_parameters()) {
    result.push_back({entry.name, entry.value});
    names.insert(entry.name);
  }
  for (const auto& entry : module.named_attributes()) {
    if (entry.value.isTensor() && entry.value.toTensor().defined() && !names.contains(entry.name)) {
      result.push_back({entry.name, entry.value.toTensor()});
    }
  }
  return result;
}

using StorageKey = std::tuple<const void*, std::vector<std::int64_t>, std::vector<std::int64_t>>;

StorageKey KeyOf(const torch::Tensor& tensor) {
  return {tensor.data_ptr(), tensor.sizes().vec(), tensor.strides().vec()};
}

// What keeps a tensor from being read like any other; empty for ordinary ones.
std::string UnknownKind(const torch::Tensor& tensor) {
  if (tensor.is_mkldnn()) return "MKL-DNN";
  if (tensor.layout() != torch::kStrided) return "sparse";
  if (tensor.is_quantized()) return "quantized";
  if (tensor.is_complex()) return "complex";
  if (tensor.is_meta()) return "meta";
  return "";
}

// nn.TransformerEncoderLayer and nn.MultiheadAttention run as one operation, without layers and without derivative,
// when no gradient is asked for; scripted modules decide that on every call. Ours are to give the same answers on the
// same layers with and without gradients, so the question gets one answer: a gradient is asked for.
void TakeOrdinaryPath(const torch::jit::Module& module) {
  static const std::set<std::string> fused = {"aten::_transformer_encoder_layer_fwd",
                                              "aten::_native_multi_head_attention", "aten::_nested_tensor_from_mask"};
  static const std::set<std::string> questions = {"aten::is_grad_enabled", "prim::requires_grad"};
  std::set<torch::jit::Graph*> seen;
  for (const torch::jit::Module& part : module.modules()) {
    for (const torch::jit::Method& method : part.get_methods()) {
      const std::shared_ptr<torch::jit::Graph> graph = method.graph();
      if (!seen.insert(graph.get()).second) continue;
      std::set<torch::jit::Node*> asks;
      bool has_fused = false;
      VisitNodes(graph->block(), [&](torch::jit::Node* node) {
        const std::string kind = node->kind().toQualString();
        has_fused = has_fused || fused.contains(kind);
        if (questions.contains(kind)) asks.insert(node);
        // Later versions of PyTorch ask in a function of its own.
        if (node->kind() != c10::prim::CallFunction) return;
        const auto type = node->input(0)->type()->cast<c10::FunctionType>();
        if (!type || !type->function()->isGraphFunction()) return;
        VisitNodes(torch::jit::toGraphFunction(*type->function()).graph()->block(), [&](torch::jit::Node* inner) {
          if (questions.contains(inner->kind().toQualString())) asks.insert(inner);
        });
      });
      if (!has_fused) continue;
      for (torch::jit::Node* node : asks) {
        const torch::jit::WithInsertPoint here(node);
        node->output()->replaceAllUsesWith(node->owningGraph()->insertConstant(true));
        node->destroy();
      }
    }
  }
}

void SetOne(const torch::jit::Module& module, const std::string& path, const torch::Tensor& value) {
  auto [owner, name] = Owner(module, path);
  owner.setattr(name, value);
}

}  // namespace

std::int64_t Layer::weights() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::int64_t FloatParameter::weights() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::int64_t Network::quantizable_weights() const {
  std::int64_t count = 0;
  for (const Layer& layer : layers) count += layer.weights();
  return count;
}

std::int64_t Network::weights_in_float() const {
  std::int64_t count = 0;
  for (const FloatParameter& tensor : left_in_float) count += tensor.weight ? tensor.weights() : 0;
  return count;
}

std::int64_t Network::bytes_in_float() const {
  std::int64_t bytes = 0;
  for (const FloatParameter& tensor : left_in_float) bytes += tensor.bytes;
  return bytes;
}

torch::Tensor GetTensor(const torch::jit::Module& module, const std::string& path) {
  const auto [owner, name] = Owner(module, path);
  const c10::IValue value = owner.attr(name);
  if (!value.isTensor()) throw Error(ErrorKind::kData, "'" + path + "' of the model is not a tensor");
  return value.toTensor();
}

TensorSlot::TensorSlot(const torch::jit::Module& module, const std::string& path) {
  const torch::Tensor old = GetTensor(module, path);
  places_.push_back(Owner(module, path));
  // Held by its slot and by `old` alone: nothing can be tied to it.
  const bool alone = old.use_count() <= 2 && old.storage().use_count() == 1;
  if (old.numel() == 0 || alone) return;
  for (const auto& [name, tensor] : Tensors(module)) {
    if (name != path && tensor.data_ptr() == old.data_ptr() && KeyOf(tensor) == KeyOf(old)) {
      places_.push_back(Owner(module, name));
    }
  }
}

void TensorSlot::Set(const torch::Tensor& value) {
  for (auto& [owner, name] : places_) owner.setattr(name, value);
}

void SetTensor(torch::jit::Module& module, const std::string& path, const torch::Tensor& value) {
  TensorSlot(module, path).Set(value);
}

void SetTraining(torch::jit::Module& module, bool training) {
  for (const torch::jit::Module& part : module.modules()) {
    if (part.hasattr("training")) part._ivalue()->setAttr("training", training);
  }
}

torch::jit::Module LoadModule(const std::filesystem::path& file) {
  const std::string what = "model file '" + file.string() + "'";
  std::error_code status;
  if (!std::filesystem::is_regular_file(file, status)) {
    throw Error(ErrorKind::kNotFound, what + " not found; give the path of a TorchScript or ONNX file");
  }
  if (std::filesystem::file_size(file, status) == 0) throw Error(ErrorKind::kData, what + " is empty");
  if (!std::ifstream(file)) throw Error(ErrorKind::kNotFound, what + " cannot be opened; check its permissions");
  const bool onnx = IsOnnxFile(file);
  if (const auto fault = onnx ? std::nullopt : ArchiveFault(file)) {
    throw Error(ErrorKind::kData, what + " cannot be read as TorchScript (" + *fault +
                                      "); write it again, in Python with torch.jit.script(model).save(path)");
  }
  torch::jit::Module module("empty");
  try {
    module = onnx ? ImportOnnx(file, what) : torch::jit::load(file.string(), torch::kCPU);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kData, what + " cannot be read as TorchScript (" + TorchReason(error) +
                                      "); write it in Python with torch.jit.script(model).save(path)");
  }
  TakeOrdinaryPath(module);
  ReadListsFromAttributes(module);
  torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : Tensors(module)) {
    if (const std::string kind = UnknownKind(tensor); !kind.empty()) {
      throw Error(ErrorKind::kData, what + ": '" + name + "' is a " + kind +
                                        " tensor; bitplan reads dense ones in memory: save it as a dense tensor" +
                                        (kind == "complex" ? " of real numbers" : ""));
    }
    torch::Tensor value = tensor;
    if (value.is_floating_point() && value.scalar_type() != torch::kFloat) {
      value = value.detach().to(torch::kFloat);
      SetTensor(module, name, value);
    }
    if (value.is_leaf()) value.set_requires_grad(false);
  }
  for (const auto& entry : module.named_parameters()) {
    if (entry.value.is_floating_point() && !entry.value.isfinite().all().item<bool>()) {
      throw Error(ErrorKind::kData,
                  what + ": '" + entry.name + "' holds NaN or infinite values; train the model again");
    }
  }
  SetTraining(module, false);
  return module;
}

torch::Tensor RunForward(const torch::jit::Module& module, const torch::Tensor& images) {
  torch::jit::Module network = module;  // forward() is not const; the copy shares its tensors
  c10::IValue answers;
  try {
    answers = network.forward({images});
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kData, "forward of the model fails for a batch of shape " + c10::str(images.sizes()) + ": " +
                                      TorchReason(error));
  }
  if (!answers.isTensor()) {
    throw Error(ErrorKind::kData, "forward of the model returns no tensor but " + answers.tagKind() +
                                      " for a batch of shape " + c10::str(images.sizes()));
  }
  return answers.toTensor();
}

void SaveModule(const torch::jit::Module& module, const std::filesystem::path& file) {
  // Through memory: LibTorch's writer would put the file's name into the archive, and aborts when the disk is full.
  std::ostringstream archive;
  module.save(archive);
  WriteFileAtomically(file, std::move(archive).str());
}

void CopyTensors(const torch::jit::Module& from, torch::jit::Module& to) {
  const torch::NoGradGuard no_grad;
  std::map<StorageKey, torch::Tensor> copies;
  for (const auto& [name, tensor] : Tensors(from)) {
    auto [entry, fresh] = copies.try_emplace(KeyOf(tensor));
    if (fresh) {
      entry->second = tensor.detach().clone();
      if (tensor.is_leaf()) entry->second.set_requires_grad(tensor.requires_grad());
    }
    SetOne(to, name, entry->second);
  }
}

torch::jit::Module CloneModule(const torch::jit::Module& module) {
  const torch::NoGradGuard no_grad;
  torch::jit::Module clone = module.deepcopy();
  CopyTensors(module, clone);  // deepcopy may fold views of one storage into one tensor
  return clone;
}

}  // namespace bitplan
