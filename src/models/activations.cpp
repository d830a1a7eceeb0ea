#include "bitplan/models/activations.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "models/inlined_graph.h"

namespace bitplan {
namespace {

using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;

constexpr double kUnbounded = std::numeric_limits<double>::infinity();

// A module with a type of its own. Networks that were copied from one share the unit their types live in, which no lock
// of TorchScript's guards, so one thread at a time adds to it.
torch::jit::Module WithOwnType(const torch::jit::Module& module) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  return module.clone();
}

// A module with a type and a graph of its own (a deep copy shares both), method calls written out.
Network WithOwnGraph(const Network& network, std::shared_ptr<Graph>& graph) {
  Network own = network;
  own.module = WithOwnType(network.module);
  CopyTensors(network.module, own.module);  // a change of type unties what submodules share
  for (const auto& [name, tensor] : own.module.named_parameters()) tensor.set_requires_grad(false);
  graph = own.module.get_method("forward").graph();
  torch::jit::Inline(*graph);
  return own;
}

// round(x / step - offset), clipped to low .. high, back on the scale of x.
Value* InsertRounding(Graph& graph, Value* x, const torch::jit::NamedValue& step, double offset, int low, int high) {
  namespace aten = c10::aten;
  Value* scaled = graph.insert(aten::div, {x, step});
  if (offset != 0.0) scaled = graph.insert(aten::sub, {scaled, offset});
  Value* clipped = graph.insert(aten::clamp, {scaled, static_cast<double>(low), static_cast<double>(high)});
  Value* difference = graph.insert(aten::sub, {graph.insert(aten::round, {clipped}), clipped});
  Value* rounded = graph.insert(aten::add, {clipped, graph.insert(aten::detach, {difference})});
  if (offset != 0.0) rounded = graph.insert(aten::add, {rounded, offset});
  return graph.insert(aten::mul, {rounded, step});
}

// "features.3.weight" of a chain of attribute reads that begins at the module itself; empty for any other value.
std::string AttributePath(const Value* value) {
  const Node* node = value->node();
  if (node->kind() == c10::prim::Param) return value == node->outputs()[0] ? "." : "";
  if (node->kind() == c10::aten::t) return AttributePath(node->inputs()[0]);
  if (node->kind() != c10::prim::GetAttr) return "";
  const std::string owner = AttributePath(node->inputs()[0]);
  if (owner.empty()) return "";
  const std::string& name = node->s(c10::attr::name);
  return owner == "." ? name : owner + "." + name;
}

struct OperandPlaces {
  std::size_t input, weight;
};

std::optional<OperandPlaces> LayerOperands(const Node* node) {
  switch (node->kind()) {
    case c10::aten::conv1d:
    case c10::aten::conv2d:
    case c10::aten::conv3d:
    case c10::aten::conv_transpose1d:
    case c10::aten::conv_transpose2d:
    case c10::aten::conv_transpose3d:
    case c10::aten::_convolution:
    case c10::aten::convolution:
    case c10::aten::linear:
    case c10::aten::matmul:
    case c10::aten::mm:
      return OperandPlaces{0, 1};
    case c10::aten::addmm:
      return OperandPlaces{1, 2};
    default:
      return std::nullopt;
  }
}

int LowCode(int bits, bool is_signed) { return is_signed ? -(1 << (bits - 1)) : 0; }
int HighCode(int bits, bool is_signed) { return is_signed ? (1 << (bits - 1)) - 1 : (1 << bits) - 1; }
double Offset(bool is_signed) { return is_signed ? 0.5 : 0.0; }

}  // namespace

const std::vector<ActivationFunction>& ActivationFunctions() {
  static const std::vector<ActivationFunction> list = {
      {"relu", "max(x, 0)", 0.0, kUnbounded},
      {"clipped-relu", "x between 0 and 1", 0.0, 1.0},
      {"hard-tanh", "x between -1 and 1", -1.0, 1.0},
      {"signed-levels", "x between -1 and 1, rounded to 16 levels without a zero", -1.0, 1.0, 16},
  };
  return list;
}

const ActivationFunction& FindActivationFunction(const std::string& name) {
  return FindByName(ActivationFunctions(), "activation", name);
}

Network WithActivation(const Network& network, const ActivationFunction& function) {
  std::shared_ptr<Graph> graph;
  Network changed = WithOwnGraph(network, graph);
  if (std::string(function.name) == "relu") return changed;
  int found = 0;
  VisitNodes(graph->block(), [&](Node* node) {
    if (node->kind() != c10::aten::relu && node->kind() != c10::aten::relu_) return;
    const torch::jit::WithInsertPoint here(node);
    Value* output = graph->insert(c10::aten::hardtanh, {node->input(0), function.low, function.high});
    if (function.levels > 0) {
      const double step = (function.high - function.low) / function.levels;
      output = InsertRounding(*graph, output, step, 0.5, -function.levels / 2, function.levels / 2 - 1);
    }
    node->output()->replaceAllUsesWith(output);
    node->destroy();
    ++found;
  });
  if (found > 0) return changed;
  throw Error(ErrorKind::kData, "model '" + network.name + "' has no relu that " + function.name + " could replace");
}

Network WithQuantizedActivations(const Network& network, int bits, const std::vector<bool>& is_signed,
                                 std::vector<ActivationQuantizer>& quantizers) {
  std::shared_ptr<Graph> graph;
  Network changed = WithOwnGraph(network, graph);
  std::map<std::string, std::size_t> layers;
  for (std::size_t l = 1; l < network.layers.size(); ++l) {
    const std::string step = "activation_step_" + std::to_string(l);
    changed.module.register_buffer(step, torch::ones({}));
    quantizers.push_back({l, step, bits, is_signed.at(l)});
    const void* weight = GetTensor(changed.module, network.layers[l].parameter).data_ptr();
    for (const auto& [name, tensor] : changed.module.named_parameters()) {
      if (tensor.data_ptr() == weight) layers[name] = l;  // under every name that is tied to it
    }
  }
  std::map<std::size_t, int> seen;
  VisitNodes(graph->block(), [&](Node* node) {
    const auto operands = LayerOperands(node);
    if (!operands) return;
    const auto found = layers.find(AttributePath(node->input(operands->weight)));
    if (found == layers.end()) return;
    const ActivationQuantizer& quantizer = quantizers[quantizers.size() - network.layers.size() + found->second];
    const torch::jit::WithInsertPoint here(node);
    Value* step = graph->insertGetAttr(graph->inputs()[0], quantizer.step);
    node->replaceInput(operands->input,
                       InsertRounding(*graph, node->input(operands->input), step, Offset(quantizer.is_signed),
                                      LowCode(bits, quantizer.is_signed), HighCode(bits, quantizer.is_signed)));
    ++seen[found->second];
  });
  for (std::size_t l = 1; l < network.layers.size(); ++l) {
    if (seen.contains(l)) continue;
    if (!network.layers[l].rounds_input()) {
      const char* const why =
          network.layers[l].is_recurrent() ? "' keeps states in float" : "' looks rows up by indices";
      throw Error(ErrorKind::kData, "layer " + network.layers[l].name + " of model '" + network.name + why +
                                        ", which cannot be rounded: set bayes.activations.bits to 32");
    }
    throw Error(ErrorKind::kData, "the inputs of layer " + network.layers[l].name + " of model '" + network.name +
                                      "' cannot be rounded: the graph does not read its weight directly");
  }
  return changed;
}

double FitActivationStep(const torch::Tensor& values, int bits, bool is_signed) {
  constexpr int kCandidates = 60;
  const torch::NoGradGuard no_grad;
  const torch::Tensor flat = values.detach().reshape(-1);
  const double largest = flat.numel() == 0 ? 0.0 : flat.abs().max().item<double>();
  if (!(largest > 0.0)) return 1.0;
  const int low = LowCode(bits, is_signed), high = HighCode(bits, is_signed);
  const double offset = Offset(is_signed);
  double best = 1.0, least = std::numeric_limits<double>::infinity();
  for (int k = 1; k <= kCandidates; ++k) {
    const double step = largest * k / kCandidates / (high + offset);
    const torch::Tensor rounded = flat.div(step).sub_(offset).round_().clamp_(low, high).add_(offset).mul_(step);
    const double error = rounded.sub_(flat).square_().mean().item<double>();
    if (error < least) {
      least = error;
      best = step;
    }
  }
  return best;
}

}  // namespace bitplan
