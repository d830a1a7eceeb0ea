// The peak of live activations, against a simulation that runs a network's graph node by node.
#include "bitplan/models/activation_timeline.h"

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/interpreter.h>
#include <torch/utils.h>

#include <map>
#include <optional>
#include <set>

#include "bitplan/models/architectures.h"
#include "models/inlined_graph.h"
#include "models/layer_reads.h"
#include "models/stored_tensors.h"
#include "models/support.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::MakeModule;
using Value = const torch::jit::Value*;

// Every node runs by itself and every value is kept; then tensors that share memory are alive from the node that makes
// the first of them to the last node that reads one. Knows no writes in place but that they share memory.
class NodeByNode {
 public:
  explicit NodeByNode(const Network& network) : network_(network), graph_(InlinedGraph(network.module)) {
    const torch::NoGradGuard no_grad;
    const StoredTensors stored(network.module, *graph_);
    for (std::size_t i = 0; i < stored.size(); ++i) not_counted_.insert(Memory(stored[i].value));
    std::vector<std::int64_t> shape{1};
    shape.insert(shape.end(), network.input_shape.begin(), network.input_shape.end());
    values_[graph_->inputs()[0]] = network.module._ivalue();
    values_[graph_->inputs()[1]] = torch::zeros(shape);
    for (const torch::jit::Node* node : graph_->nodes()) {
      number_[node] = nodes_.size();
      nodes_.push_back(node);
      RunAlone(*node);
    }
    number_[graph_->return_node()] = nodes_.size();
    const ReadValues reads = ValuesOf(FindLayerReads(*graph_, network.module, network));
    first_ = FirstReaders(reads, network.layers.size());
    for (const auto& [value, readers] : reads) quantized_[value] = first_[readers.front()];
  }

  // `bits`: of every layer's input.
  [[nodiscard]] std::int64_t Peak(const std::vector<int>& bits) const {
    struct Life {
      std::size_t made = 0, last = 0;
      std::int64_t values = 0;
      std::set<int> widths{};  // that it is read at
    };
    std::map<const void*, Life> lives;
    for (const auto& [value, content] : values_) {
      for (const torch::Tensor& tensor : Activations(content)) {
        const bool is_input = value->node() == graph_->param_node();
        const std::size_t made = is_input ? 0 : number_.at(value->node());
        Life& life = lives.try_emplace(Memory(tensor), Life{made, made, 0, {}}).first->second;
        life.made = std::min(life.made, made);
        life.last = std::max(life.last, made);
        life.values = static_cast<std::int64_t>(tensor.storage().nbytes()) / 4;
        for (const torch::jit::Use& use : value->uses()) {
          const torch::jit::Node* const reader = Outermost(use.user);
          if (reader->kind() == c10::aten::size) continue;
          life.last = std::max(life.last, number_.at(reader));
          if (reader != graph_->return_node() && SharesWithOutputs(*reader, tensor)) continue;
          const auto quantizer = QuantizerOf(value, tensor);
          life.widths.insert(quantizer && reader != graph_->return_node() ? bits[*quantizer] : 32);
        }
      }
    }
    std::int64_t peak = 0;
    for (std::size_t t = 0; t < nodes_.size(); ++t) {
      std::int64_t live = 0;
      for (const auto& [memory, life] : lives) {
        if (life.made > t || life.last < t) continue;
        live += (life.values * (life.widths.size() == 1 ? *life.widths.begin() : 32) + 7) / 8;
      }
      peak = std::max(peak, live);
    }
    return peak;
  }

 private:
  static const void* Memory(const torch::Tensor& tensor) { return tensor.storage().unsafeGetStorageImpl(); }

  const torch::jit::Node* Outermost(const torch::jit::Node* node) const {
    while (node->owningBlock() != graph_->block()) node = node->owningBlock()->owningNode();
    return node;
  }

  void RunAlone(const torch::jit::Node& node) {
    if (node.kind() == c10::prim::Constant) {
      values_[node.output()] = *torch::jit::toIValue(node.output());
      return;
    }
    const auto alone = std::make_shared<torch::jit::Graph>();
    std::map<Value, torch::jit::Value*> inputs;
    torch::jit::Stack stack;
    torch::jit::Node* const copy =
        alone->insertNode(alone->createClone(const_cast<torch::jit::Node*>(&node), [&](torch::jit::Value* value) {
          const auto [entry, fresh] = inputs.try_emplace(value, nullptr);
          if (fresh) {
            entry->second = alone->addInput()->copyMetadata(value);
            stack.push_back(values_.at(value));
          }
          return entry->second;
        }));
    for (torch::jit::Value* output : copy->outputs()) alone->registerOutput(output);
    torch::jit::InterpreterState(torch::jit::Code(alone, "alone")).run(stack);
    for (std::size_t o = 0; o < node.outputs().size(); ++o) values_[node.outputs()[o]] = stack.at(o);
  }

  [[nodiscard]] std::vector<torch::Tensor> Activations(const c10::IValue& content) const {
    std::vector<torch::Tensor> found;
    if (content.isModule()) return found;
    ForEachTensor(content, "", [&](const std::string&, const torch::Tensor& tensor) {
      if (tensor.dim() > 0 && !not_counted_.contains(Memory(tensor))) found.push_back(tensor);
    });
    return found;
  }

  [[nodiscard]] bool SharesWithOutputs(const torch::jit::Node& node, const torch::Tensor& tensor) const {
    for (const torch::jit::Value* output : node.outputs()) {
      for (const torch::Tensor& other : Activations(values_.at(output))) {
        if (Memory(other) == Memory(tensor)) return true;
      }
    }
    return false;
  }

  // Of the value, or of the one that it is a view of; a list holds several tensors.
  [[nodiscard]] std::optional<std::size_t> QuantizerOf(Value value, const torch::Tensor& tensor) const {
    if (const auto found = quantized_.find(value); found != quantized_.end()) return found->second;
    if (value->node() == graph_->param_node()) return std::nullopt;
    for (const torch::jit::Value* input : value->node()->inputs()) {
      for (const torch::Tensor& other : Activations(values_.at(input))) {
        if (Memory(other) == Memory(tensor)) return QuantizerOf(input, tensor);
      }
    }
    return std::nullopt;
  }

  const Network& network_;
  std::shared_ptr<torch::jit::Graph> graph_;
  std::set<const void*> not_counted_;
  std::map<Value, c10::IValue> values_;
  std::vector<const torch::jit::Node*> nodes_;
  std::map<const torch::jit::Node*, std::size_t> number_;
  std::vector<std::size_t> first_;
  std::map<Value, std::size_t> quantized_;
};

Network Built(const std::string& name) {
  return DescribeNetwork(BuildArchitecture(name, 1), name, FindArchitecture(name).input_shape);
}

// Convolutions a and b of four channels and a linear layer on [4, 8, 8]: a tensor has 256 values.
Network Small(const std::string& forward) {
  torch::manual_seed(3);
  return DescribeNetwork(
      MakeModule({{"a", torch::randn({4, 4, 3, 3})}, {"b", torch::randn({4, 4, 3, 3})}, {"fc", torch::randn({3, 4})}},
                 "def conv(self, x, w):\n    return torch.conv2d(x, w, None, 1, 1)\ndef forward(self, x):\n" + forward),
      "small", {4, 8, 8});
}

// Of three layers, or all at one width.
std::int64_t PeakOf(const Network& network, int bits) {
  return PeakActivationBytes(FindActivationTimeline(network), std::vector<int>(network.layers.size(), bits));
}

TEST_CASE("the peak of activations is that of a simulation node by node, in float and at mixed widths") {
  for (const char* name : {"lenet5-caffe", "lenet-300-100", "resnet20", "vgg16-bn"}) {
    const Network network = Built(name);
    const NodeByNode simulation(network);
    const ActivationTimeline timeline = FindActivationTimeline(network);
    CAPTURE(name, timeline.steps.size());
    const std::size_t layers = network.layers.size();
    for (const int width : {32, 16, 8, 4, 2}) {
      CAPTURE(width);
      const std::vector<int> bits(layers, width);
      CHECK(PeakActivationBytes(timeline, bits) == simulation.Peak(bits));
    }
    for (int round = 0; round < 20; ++round) {
      std::vector<int> bits(layers);
      for (std::size_t l = 0; l < layers; ++l) {
        bits[l] = 2 + static_cast<int>((7 * timeline.tensors[l] + 3 * static_cast<std::size_t>(round)) % 7);
      }
      CAPTURE(round);
      CHECK(PeakActivationBytes(timeline, bits) == simulation.Peak(bits));
    }
  }
}

TEST_CASE("foreign models have the peak of the simulation too") {
  for (const auto& [file, shape] :
       {std::pair<const char*, std::vector<std::int64_t>>{"resnet20_cifar10.ts.pt", {3, 32, 32}},
        {"vgg16_bn_cifar10.ts.pt", {3, 32, 32}}}) {
    const auto path = testing::ForeignModel(file);
    if (!path) continue;
    const Network network = DescribeNetwork(LoadModule(*path), file, shape);
    CAPTURE(file);
    CHECK(PeakOf(network, 32) == NodeByNode(network).Peak(std::vector<int>(network.layers.size(), 32)));
  }
}

TEST_CASE("branches keep what a later branch reads") {
  const Network network = Small(
      "    h = torch.relu(self.conv(x, self.a))\n"
      "    left = torch.relu(self.conv(h, self.b))\n"
      "    right = torch.max_pool2d(h, 3, 1, 1)\n"
      "    y = torch.cat([left, right, h[:, :2]], 1)\n"
      "    y = y[:, :4] + y[:, 4:8] + y[:, 6:]\n"
      "    return torch.linear(y.mean([2, 3]), self.fc)\n");
  const NodeByNode simulation(network);
  for (const int width : {32, 8, 3}) {
    CAPTURE(width);
    CHECK(PeakOf(network, width) == simulation.Peak(std::vector<int>(3, width)));
  }
  // cat: h, left, right of 1024 bytes each, and ten channels of 64 values.
  CHECK(PeakOf(network, 32) == 3 * 1024 + 2560);
}

TEST_CASE("a residual connection holds the tensor that it passes by") {
  const std::string head = "    h = torch.relu(self.conv(x, self.a))\n    y = self.conv(h, self.b)\n";
  const std::string tail = "    return torch.linear(torch.relu(y).mean([2, 3]), self.fc)\n";
  const Network plain = Small(head + tail), joined = Small(head + "    y = y + h\n" + tail);
  CHECK(PeakOf(plain, 32) == 2 * 1024);
  CHECK(PeakOf(joined, 32) == 3 * 1024);  // both terms and their sum
  const ActivationTimeline timeline = FindActivationTimeline(joined);
  CHECK(PeakStep(timeline, {32, 32, 32}).where == "aten::add after b");
  // What b reads is rounded once, and the sum reads it rounded.
  CHECK(PeakActivationBytes(timeline, {8, 8, 8}) == 1024 + 256 + 1024);
  CHECK(PeakActivationBytes(timeline, {8, 32, 8}) == 3 * 1024);
  CHECK(PeakActivationBytes(timeline, {8, 3, 8}) == 2 * 1024 + 96);
}

TEST_CASE("an operation in place makes no tensor, and rounding begins behind it") {
  const Network network = Small(
      "    h = self.conv(x, self.a).relu_()\n"
      "    y = self.conv(h, self.b)\n"
      "    y.relu_()\n"
      "    return torch.linear(y.mean([2, 3]), self.fc)\n");
  CHECK(PeakOf(network, 32) == 2 * 1024);
  const ActivationTimeline timeline = FindActivationTimeline(network);
  CHECK(PeakActivationBytes(timeline, {8, 8, 8}) == 256 + 1024);   // a: its input at 8 bits, its output not yet rounded
  CHECK(PeakActivationBytes(timeline, {4, 16, 8}) == 512 + 1024);  // b
}

TEST_CASE("a tensor that something else reads in float counts in float") {
  const std::string begin = "    h = torch.relu(self.conv(x, self.a))\n    v = h.flatten(2).unsqueeze(3)\n";
  const std::string rounded = begin +
                              "    y = self.conv(v.reshape([-1, 4, 8, 8]), self.b)\n"
                              "    return torch.linear(y.mean([2, 3]), self.fc)\n";
  const std::string both = begin +
                           "    y = self.conv(v.reshape([-1, 4, 8, 8]), self.b)\n"
                           "    return torch.linear(y.mean([2, 3]) + h.mean([2, 3]), self.fc)\n";
  CHECK(PeakOf(Small(rounded), 8) == 256 + 1024);
  CHECK(PeakOf(Small(both), 8) >= 2 * 1024);
  CHECK(NodeByNode(Small(both)).Peak({8, 8, 8}) == PeakOf(Small(both), 8));
}

TEST_CASE("finding the peak leaves the network as it was") {
  const Network network = testing::ConvBatchNorm();
  const std::string before = ModelHash(network.module);
  (void)FindActivationTimeline(network);
  CHECK(ModelHash(network.module) == before);
  (void)FindActivationTimeline(testing::RareBranch(0.0));  // branches and numbers without dimensions
}

}  // namespace
}  // namespace bitplan
