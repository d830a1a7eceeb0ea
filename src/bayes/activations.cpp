#include "bitplan/bayes/activations.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <limits>
#include <mutex>
#include <set>
#include <string>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "models/inlined_graph.h"
#include "models/layer_reads.h"
#include "quantizers/inserted_quantizers.h"

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
  InlineCalls(*graph);
  return own;
}

// Quantizers of `bits` around zero, or from zero up.
AffineQuantizer WithoutScale(int bits, bool is_signed) {
  AffineQuantizer quantizer{.bits = bits, .half = is_signed};
  if (is_signed) quantizer.zero_point = (quantizer.highest() + 1) / 2;
  return quantizer;
}

}  // namespace

const std::vector<ActivationFunction>& ActivationFunctions() {
  static const std::vector<ActivationFunction> list = {
      {"relu", "max(x, 0)", 0.0, kUnbounded},
      {"clipped-relu", "x between 0 and 1", 0.0, 1.0},
      {"hard-tanh", "x between -1 and 1", -1.0, 1.0},
      {"signed-levels", "x between -1 and 1, rounded to 16 levels without a zero", -1.0, 1.0, 4},
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
    if (function.bits > 0) {
      const AffineQuantizer quantizer = WithoutScale(function.bits, true);
      const double scale = (function.high - function.low) / static_cast<double>(quantizer.highest() + 1);
      output =
          InsertQuantizer(node, output, graph->insertConstant(torch::tensor(static_cast<float>(scale))), quantizer);
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
  for (std::size_t l = 1; l < network.layers.size(); ++l) {
    const std::string step = "activation_step_" + std::to_string(l);
    changed.module.register_buffer(step, torch::ones({}));
    quantizers.push_back({l, step, WithoutScale(bits, is_signed.at(l))});
  }
  const ActivationQuantizer* const of_layers = quantizers.data() + (quantizers.size() + 1 - network.layers.size());
  std::set<std::size_t> seen;
  for (const LayerRead& read : FindLayerReads(*graph, changed.module, network)) {
    if (read.layer == 0) continue;
    const ActivationQuantizer& of_layer = of_layers[read.layer - 1];
    const torch::jit::WithInsertPoint here(read.node);
    Value* step = graph->insertGetAttr(graph->inputs()[0], of_layer.step);
    read.node->replaceInput(read.input,
                            InsertQuantizer(read.node, read.node->input(read.input), step, of_layer.quantizer));
    seen.insert(read.layer);
  }
  for (std::size_t l = 1; l < network.layers.size(); ++l) {
    if (seen.contains(l)) continue;
    if (!network.layers[l].rounds_input()) {
      const char* const why =
          network.layers[l].is_recurrent() ? "' keeps states in float" : "' looks rows up by indices";
      throw Error(ErrorKind::kData, "layer " + network.layers[l].name + " of model '" + network.name + why +
                                        ", which cannot be rounded: set bayes.activation_bits to 32");
    }
    throw Error(ErrorKind::kData, "the inputs of layer " + network.layers[l].name + " of model '" + network.name +
                                      "' cannot be rounded: the graph does not read its weight directly");
  }
  return changed;
}

}  // namespace bitplan
