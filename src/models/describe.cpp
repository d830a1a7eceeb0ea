#include <fmt/format.h>

#include <exception>
#include <set>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/models/network.h"
#include "models/inlined_graph.h"
#include "models/model_checks.h"
#include "models/rare_layers.h"
#include "models/recorded_pass.h"
#include "models/torch_reason.h"

namespace bitplan {
namespace {

using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

NamedTensors BuffersOf(const torch::jit::Module& module) {
  NamedTensors buffers;
  for (const auto& entry : module.named_buffers()) buffers.emplace_back(entry.name, entry.value.detach().clone());
  return buffers;
}

// Those of `before` that are written to, or have other values in `module` now.
NamedTensors Changed(const NamedTensors& before, const torch::jit::Module& module,
                     const std::set<std::string>& written) {
  NamedTensors changed;
  for (const auto& [name, value] : before) {
    const torch::Tensor now = GetTensor(module, name);
    if (written.contains(name) || now.sizes() != value.sizes() ||
        !(now.eq(value) | (now.ne(now) & value.ne(value))).all().item<bool>()) {
      changed.emplace_back(name, value);
    }
  }
  return changed;
}

}  // namespace

Network DescribeNetwork(torch::jit::Module module, const std::string& name,
                        const std::vector<std::int64_t>& input_shape, const torch::Tensor& images) {
  // An optimized graph, once a method has one, is used even where the optimizer is switched off later; it hides layers
  // in differentiable subgraphs and may change the arithmetic after a few runs.
  torch::jit::setGraphExecutorOptimize(false);
  if (!module.find_method("forward")) {
    throw Error(ErrorKind::kData, fmt::format("model '{}' has no forward method", name));
  }
  const auto graph = InlinedGraph(module);
  CheckNotQuantized(*graph, name);
  const NamedTensors buffers = BuffersOf(module);  // before the first pass
  const torch::ScalarType type = TakesIntegers(module, input_shape) ? torch::kInt64 : torch::kFloat;
  std::set<std::string> written;
  Network network;
  try {
    network = RecordPass(module, *graph, written, [&] { CheckOutput(RunZeros(module, input_shape, 1, type), name); });
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw NoSingleInput(module, name, input_shape, TorchReason(error));
  }
  network.name = name;
  network.input_shape = input_shape;
  network.input_type = type;
  if (!TakesBatch(module, input_shape, 2, type)) throw OneBatchOnly(name, 1);
  if (images.defined() && HasUnusedWeights(network)) {
    AddRareLayers(network, written, *graph, type == torch::kFloat ? images : images.to(type));
  }
  network.changed_by_forward = Changed(buffers, module, written);
  RestoreChangedByForward(network, module);
  CheckHasLayers(network);
  CheckMagnitudes(network);
  return network;
}

void RestoreChangedByForward(const Network& network, const torch::jit::Module& module) {
  const torch::NoGradGuard no_grad;
  for (const auto& [name, value] : network.changed_by_forward) {
    const torch::Tensor now = GetTensor(module, name);
    if (now.sizes() == value.sizes()) {
      now.copy_(value);
    } else {
      torch::jit::Module owner = module;
      SetTensor(owner, name, value.clone());
    }
  }
}

std::vector<std::int64_t> GuessInputShape(const torch::jit::Module& module) {
  static const std::vector<std::vector<std::int64_t>> shapes = {{1, 28, 28}, {3, 32, 32}, {1, 32, 32},  {3, 28, 28},
                                                                {3, 64, 64}, {784},       {3, 224, 224}};
  if (module.find_method("forward")) CheckNotQuantized(*InlinedGraph(module), "given");
  std::string reason;
  for (const auto& shape : shapes) {
    try {
      torch::jit::Module tried = module;
      (void)RunZeros(tried, shape, 1);
      return shape;
    } catch (const std::exception& error) {
      if (reason.empty()) reason = TorchReason(error);
    }
  }
  throw Error(ErrorKind::kData, fmt::format("the model takes none of the input shapes of the known data sets ({} for "
                                            "the first, {}); give its input shape, as in --shape 3,32,32",
                                            reason, BracketedShape(shapes.front())));
}

}  // namespace bitplan
