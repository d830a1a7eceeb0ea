#include "models/importers/onnx_import.h"

#include <fmt/format.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/models/stated_shape.h"
#include "models/importers/onnx_call.h"
#include "models/importers/onnx_tensor.h"
#include "models/torch_reason.h"

namespace bitplan {
namespace {

using namespace onnx_import;  // NOLINT(google-build-using-namespace): this file puts its parts together

// Sizes of the batches that a network is built with: both odd, not one and without a common divisor, so that no size
// that depends on the batch looks like a constant.
constexpr std::int64_t kTriedBatches[2] = {3, 5};
constexpr std::int64_t kMostLive = std::int64_t{1} << 28;  // numbers of all values at a time

const OnnxTranslators& Translators() {
  static const OnnxTranslators all = [] {
    OnnxTranslators list;
    for (const auto add : {AddLayers, AddNorms, AddActivations, AddElements, AddPools, AddShapes, AddParts, AddPlaces,
                           AddReductions, AddRecurrent, AddResize}) {
      add(list);
    }
    return list;
  }();
  return all;
}

std::int64_t NumbersOf(const OnnxValue& value) {
  std::int64_t count = 0;
  for (const torch::Tensor& walk : value->walks) count += value->constant() ? 0 : walk.numel();
  return count;
}

// Where the numbers of a model come from, shared by all attempts to translate it.
class OnnxModel {
 public:
  OnnxModel(const std::filesystem::path& path, const std::string& what)
      : path_(path), what_(what), file_(ReadOnnxFile(path, what)) {
    for (const TensorField& tensor : file_.initializers) {
      if (!initializers_.emplace(tensor.name, &tensor).second) {
        Refuse(fmt::format("it has two tensors '{}'", Shown(tensor.name)));
      }
    }
    std::vector<const PortField*> inputs;
    for (const PortField& port : file_.inputs) {
      if (!initializers_.contains(port.name)) inputs.push_back(&port);
    }
    if (inputs.size() != 1) {
      std::string names;
      for (const PortField* port : inputs) names += (names.empty() ? "" : ", ") + Shown(port->name);
      Refuse(fmt::format("it takes {} inputs ({}) where bitplan gives one, a batch of images: export a model with one",
                         inputs.size(), names));
    }
    input_ = inputs.front();
    if (file_.outputs.empty()) Refuse("it has no output");
    if (!input_->has_shape || input_->dims.empty()) {
      Refuse(fmt::format("it does not say how many dimensions its input '{}' has", Shown(input_->name)));
    }
    const auto type = TorchType(input_->type);
    if (!type) Refuse(fmt::format("its input '{}' is of type {}, not of numbers", Shown(input_->name), input_->type));
    type_ = *type;
  }

  [[noreturn]] void Refuse(const std::string& why) const {
    throw Error(ErrorKind::kData, fmt::format("{}: {}", what_, why));
  }

  [[nodiscard]] torch::Tensor Read(const TensorField& field) const { return TorchTensor(field, path_, what_); }
  // Of an initializer; nothing for any other name.
  [[nodiscard]] std::optional<torch::Tensor> Initializer(const std::string& name) {
    const auto found = initializers_.find(name);
    if (found == initializers_.end()) return std::nullopt;
    torch::Tensor& read = read_[name];
    if (!read.defined()) read = Read(*found->second);
    return read;
  }

  [[nodiscard]] const std::string& what() const { return what_; }
  [[nodiscard]] const OnnxFile& file() const { return file_; }
  [[nodiscard]] const PortField& input() const { return *input_; }
  [[nodiscard]] torch::ScalarType type() const { return type_; }

 private:
  const std::filesystem::path& path_;
  const std::string& what_;
  OnnxFile file_;
  std::map<std::string, const TensorField*> initializers_;
  std::map<std::string, torch::Tensor> read_;
  const PortField* input_ = nullptr;
  torch::ScalarType type_ = torch::kFloat;
};

// One attempt, for one output and certain sizes of the input.
class Translation {
 public:
  // `bare`: leaves out a last softmax.
  Translation(OnnxModel& model, const std::string& output, const std::vector<Walk>& walks, std::int64_t fixed_batch,
              bool bare)
      : model_(model), output_(output), builder_(walks, model.type(), fixed_batch) {
    if (bare) LeaveOutSoftmax();
    FindNeeded();
    values_[model_.input().name] = builder_.input();
  }

  torch::jit::Module Run() {
    const auto& nodes = model_.file().nodes;
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      if (needed_[n]) Translate(n);
    }
    const OnnxValue output = Value(output_);
    if (output == nullptr) model_.Refuse(fmt::format("nothing makes its output '{}'", Shown(output_)));
    rank_ = output->rank();
    logits_ = rank_ == 2 && output->tensor().size(1) >= 2;
    return builder_.Finish(output);
  }

  // Whether the output is [batch, classes].
  [[nodiscard]] bool logits() const { return logits_; }
  // Whether the output is what a softmax takes that was not over the last of two dimensions: no logits.
  [[nodiscard]] bool wrongly_bare() const { return bare_ && rank_ != 2; }

 private:
  // The operations that the output depends on, and how many of them read every value.
  void FindNeeded() {
    const auto& nodes = model_.file().nodes;
    needed_.assign(nodes.size(), false);
    std::set<std::string> wanted = {output_};
    readers_[output_].push_back(nodes.size());
    for (std::size_t n = nodes.size(); n-- > 0;) {
      for (const std::string& output : nodes[n].outputs) {
        needed_[n] = needed_[n] || (!output.empty() && wanted.contains(output));
      }
      if (!needed_[n]) continue;
      for (const std::string& input : nodes[n].inputs) {
        wanted.insert(input);
        readers_[input].push_back(n);
      }
    }
  }

  // Probabilities become logits.
  void LeaveOutSoftmax() {
    for (const NodeField& node : model_.file().nodes) {
      const bool makes = !node.outputs.empty() && node.outputs.front() == output_;
      if (!makes || node.type != "Softmax" || node.inputs.size() != 1 || !IsLastAxis(node)) continue;
      output_ = node.inputs.front();
      bare_ = true;
      return;
    }
  }

  // Of logits, which have two dimensions.
  static bool IsLastAxis(const NodeField& node) {
    const auto axis = node.attributes.find("axis");
    return axis == node.attributes.end() || axis->second.integer == -1 || axis->second.integer == 1;
  }

  // Null for a name that nothing before this node makes.
  OnnxValue Value(const std::string& name) {
    const auto known = values_.find(name);
    if (known != values_.end()) return known->second;
    const auto tensor = model_.Initializer(name);
    if (!tensor) return nullptr;
    OnnxValue constant = builder_.Constant(*tensor, name);
    constant->parameter = tensor->is_floating_point() && tensor->numel() > 1;
    values_[name] = constant;
    return constant;
  }

  // The sum that a product with a weight goes into, and nothing else does: together they are one linear layer.
  std::optional<std::size_t> BiasOf(const NodeField& product) {
    if (product.type != "MatMul" || product.inputs.size() != 2 || product.outputs.size() != 1) return std::nullopt;
    const auto readers = readers_.find(product.outputs.front());
    if (readers == readers_.end() || readers->second.size() != 1) return std::nullopt;
    const std::size_t at = readers->second.front();
    const auto& nodes = model_.file().nodes;
    if (at >= nodes.size() || nodes[at].type != "Add" || nodes[at].inputs.size() != 2) return std::nullopt;
    const OnnxValue weight = Value(product.inputs[1]), bias = Value(Other(nodes[at], product.outputs.front()));
    if (weight == nullptr || bias == nullptr || !weight->constant() || !bias->constant()) return std::nullopt;
    const bool fits = weight->rank() == 2 && bias->rank() == 1 && bias->tensor().size(0) == weight->tensor().size(1);
    return fits ? std::optional<std::size_t>(at) : std::nullopt;
  }

  static const std::string& Other(const NodeField& sum, const std::string& one) {
    return sum.inputs[sum.inputs[0] == one ? 1 : 0];
  }

  void Translate(std::size_t n) {
    const NodeField& node = model_.file().nodes[n];
    const std::int64_t opset = model_.file().opset;
    const auto fail = [&](const std::string& why) -> Error {
      const std::string name = !node.name.empty() ? node.name : node.outputs.empty() ? "" : node.outputs.front();
      return {ErrorKind::kData,
              fmt::format("{}: node '{}' ({}, opset {}) {}", model_.what(), Shown(name),
                          Shown(node.domain.empty() ? node.type : node.domain + "." + node.type), opset, why)};
    };
    const auto translator = Translators().find(node.type);
    if (translator == Translators().end() || (!node.domain.empty() && node.domain != "ai.onnx")) {
      throw fail("is an operator that bitplan does not translate; docs/models.md lists those that it does");
    }
    std::vector<OnnxValue> inputs;
    for (const std::string& input : node.inputs) {
      inputs.push_back(input.empty() ? nullptr : Value(input));
      if (!input.empty() && inputs.back() == nullptr) {
        throw fail(fmt::format("reads '{}', which nothing before it makes; export the model again", Shown(input)));
      }
    }
    const auto sum = BiasOf(node);
    if (sum) inputs.push_back(Value(Other(model_.file().nodes[*sum], node.outputs.front())));
    try {
      const OnnxCall call(builder_, node, opset, inputs,
                          [this](const TensorField& field) { return model_.Read(field); });
      const std::vector<OnnxValue> made = translator->second(call);
      call.CheckAttributes();
      Keep(sum ? model_.file().nodes[*sum] : node, made);
      if (sum) needed_[*sum] = false;
    } catch (const FixedBatchRefusal& refusal) {
      throw fail(
          fmt::format("works for batches of {} only ({}); export the model again with dynamic_axes for the batch",
                      builder_.fixed_batch(), refusal.what()));
    } catch (const Refusal& refusal) {
      throw fail(refusal.what());
    }
    for (const std::string& input : node.inputs) Release(input);
  }

  void Keep(const NodeField& node, const std::vector<OnnxValue>& made) {
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      const std::string& name = node.outputs[i];
      if (name.empty()) continue;
      if (i >= made.size() || made[i] == nullptr) {
        if (readers_.contains(name)) throw Refusal(fmt::format("has an output {}, which bitplan does not make", i + 1));
        continue;
      }
      if (made[i]->name.empty()) made[i]->name = name;
      if (!values_.emplace(name, made[i]).second) {
        throw Refusal(fmt::format("makes '{}', which another node makes too", Shown(name)));
      }
      live_ += NumbersOf(made[i]);
    }
    if (live_ > kMostLive)
      throw Refusal(fmt::format("brings the values that a pass keeps to more than {} numbers", kMostLive));
  }

  // Forgets a value that nothing reads any more.
  void Release(const std::string& name) {
    const auto readers = readers_.find(name);
    const auto value = values_.find(name);
    if (readers == readers_.end() || value == values_.end()) return;
    readers->second.pop_back();
    if (!readers->second.empty() || value->second->constant()) return;
    live_ -= NumbersOf(value->second);
    values_.erase(value);
  }

  OnnxModel& model_;
  std::string output_;
  OnnxBuilder builder_;
  std::vector<bool> needed_;
  std::map<std::string, std::vector<std::size_t>> readers_;  // nodes that still have to read a value
  std::map<std::string, OnnxValue> values_;
  std::int64_t live_ = 0, rank_ = 0;
  bool logits_ = false, bare_ = false;
};

// The sizes to build with, and the batch that the file fixes. `open`: for every size but the batch that the file leaves
// open; `second`: another one for these, in a walk of its own.
std::vector<Walk> WalksOf(const PortField& input, std::int64_t open, std::optional<std::int64_t> second) {
  const auto walk = [&](std::int64_t batch, std::int64_t size) {
    Walk made{{batch}};
    for (std::size_t d = 1; d < input.dims.size(); ++d) made.input.push_back(input.dims[d].value_or(size));
    return made;
  };
  std::vector<Walk> walks;
  if (input.dims.front()) walks.push_back(walk(*input.dims.front(), open));
  for (const std::int64_t batch : kTriedBatches) walks.push_back(walk(batch, open));
  if (second) walks.push_back(walk(kTriedBatches[0], *second));
  return walks;
}

bool IsOpen(const PortField& input) {
  return std::any_of(input.dims.begin() + 1, input.dims.end(), [](const auto& size) { return !size; });
}

// Every image must get the answer that it gets alone; a file that was made for batches of one size may mix them.
void CheckImagesApart(torch::jit::Module module, const OnnxModel& model, const Walk& walk) {
  const torch::NoGradGuard no_grad;
  Sizes shape = walk.input;
  shape.front() = kTriedBatches[0];
  torch::Tensor images = torch::zeros(shape, model.type());
  if (images.is_floating_point()) images = torch::rand(shape, at::detail::createCPUGenerator(1));
  bool apart = true;
  std::string why;
  try {
    const torch::Tensor together = module.forward({images}).toTensor();
    for (std::int64_t i = 0; i < shape.front(); ++i) {
      const torch::Tensor alone = module.forward({images.narrow(0, i, 1)}).toTensor();
      apart = apart && together.dim() > 0 && together.size(0) == shape.front() &&
              together.narrow(0, i, 1).allclose(alone, 1e-3, 1e-4, /*equal_nan=*/true);
    }
  } catch (const std::exception& error) {
    apart = false;
  }
  if (apart) return;
  model.Refuse(
      fmt::format("it was made for batches of {}, and does not answer image by image for others: export it "
                  "again with dynamic_axes for the batch",
                  *model.input().dims.front()));
}

torch::jit::Module TranslateFor(OnnxModel& model, const std::string& output, bool& logits) {
  const PortField& input = model.input();
  const std::int64_t fixed_batch = input.dims.front().value_or(0);
  const auto attempt = [&](const std::vector<Walk>& walks) {
    Translation bare(model, output, walks, fixed_batch, /*bare=*/true);
    torch::jit::Module module = bare.Run();
    logits = bare.logits();
    if (bare.wrongly_bare()) module = Translation(model, output, walks, fixed_batch, /*bare=*/false).Run();
    if (fixed_batch > 0) CheckImagesApart(module, model, walks.front());
    return module;
  };
  if (!IsOpen(input)) return attempt(WalksOf(input, 1, std::nullopt));
  // Sizes that images and series have. One that the network takes need not be the one of the data.
  std::optional<Error> first;
  for (const bool twice : {true, false}) {
    for (const std::int64_t size : {32, 28, 64, 224, 16, 128, 8}) {
      try {
        return attempt(WalksOf(input, size, twice ? std::optional(2 * size) : std::nullopt));
      } catch (const Error& error) {
        if (!first) first = error;
      }
    }
  }
  throw *first;
}

}  // namespace

bool IsOnnxFile(const std::filesystem::path& file) {
  std::string end = file.extension().string();
  for (char& c : end) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return end == ".onnx";
}

torch::jit::Module ImportOnnx(const std::filesystem::path& file, const std::string& what) {
  const torch::NoGradGuard no_grad;
  OnnxModel model(file, what);
  std::optional<torch::jit::Module> first;
  std::optional<Error> failure;
  for (const PortField& output : model.file().outputs) {
    try {
      bool logits = false;
      torch::jit::Module module = TranslateFor(model, output.name, logits);
      if (logits) return module;
      if (!first) first = module;
    } catch (const Error& error) {
      if (!failure) failure = error;
    } catch (const std::exception& error) {  // outside of nodes
      if (!failure) failure = Error(ErrorKind::kData, fmt::format("{}: a pass {}", what, TorchReason(error)));
    }
  }
  if (failure) throw *failure;
  return *first;
}

std::vector<std::int64_t> StatedInputShape(const std::filesystem::path& file) {
  std::vector<std::int64_t> shape;
  if (!IsOnnxFile(file)) return shape;
  const std::string what = "model file '" + file.string() + "'";
  const OnnxModel model(file, what);
  if (IsOpen(model.input())) return shape;
  for (std::size_t d = 1; d < model.input().dims.size(); ++d) shape.push_back(*model.input().dims[d]);
  return shape;
}

}  // namespace bitplan
