#include "models/resumable_pass.h"

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/utils.h>

#include <algorithm>
#include <map>
#include <new>
#include <set>
#include <unordered_map>

#include "bitplan/core/error.h"
#include "bitplan/models/tap.h"
#include "models/inlined_graph.h"
#include "models/torch_reason.h"

namespace bitplan {
namespace {

// The node of the outermost block that holds `node`.
const torch::jit::Node* OutermostNode(const torch::jit::Node* node, const torch::jit::Graph& graph) {
  while (node->owningBlock() != graph.block()) node = node->owningBlock()->owningNode();
  return node;
}

// Where values of the outermost block are made and read, in numbers of its nodes.
class Lifetimes {
 public:
  explicit Lifetimes(const torch::jit::Graph& graph) : graph_(graph) {
    for (const torch::jit::Node* node : graph.nodes()) {
      number_[node] = nodes_.size();
      nodes_.push_back(node);
    }
    number_[graph.return_node()] = nodes_.size();
  }

  [[nodiscard]] std::size_t count() const { return nodes_.size(); }
  [[nodiscard]] const torch::jit::Node* node(std::size_t index) const { return nodes_[index]; }
  // The last node that reads the value, count() for the graph's answer; nothing (0) where none does.
  [[nodiscard]] std::size_t LastRead(const torch::jit::Value* value) const {
    std::size_t last = 0;
    for (const torch::jit::Use& use : value->uses()) {
      last = std::max(last, number_.at(OutermostNode(use.user, graph_)));
    }
    return last;
  }

 private:
  const torch::jit::Graph& graph_;
  std::vector<const torch::jit::Node*> nodes_;
  std::unordered_map<const torch::jit::Node*, std::size_t> number_;
};

// For every node whether it stands outside of all `with` statements: the interpreter leaves what it has entered itself.
std::vector<bool> OutsideOfContexts(const Lifetimes& lifetimes) {
  std::vector<bool> outside;
  int open = 0;
  for (std::size_t i = 0; i < lifetimes.count(); ++i) {
    outside.push_back(open == 0);
    if (lifetimes.node(i)->kind() == c10::prim::Enter) ++open;
    if (lifetimes.node(i)->kind() == c10::prim::Exit) --open;
  }
  outside.push_back(true);
  return outside;
}

// For every node whether a pass may start again before it: none of the values that lie ready there is written later.
std::vector<bool> AllowedCuts(const std::shared_ptr<torch::jit::Graph>& graph, const Lifetimes& lifetimes) {
  std::vector<bool> allowed = OutsideOfContexts(lifetimes);
  const torch::jit::AliasDb aliases(graph);
  const auto forbid = [&](const torch::jit::Value* value, std::size_t made) {
    if (!aliases.hasWriters(value)) return;
    const std::size_t last_read = lifetimes.LastRead(value);
    for (std::size_t at = lifetimes.count(); at-- > made;) {
      auto* node = const_cast<torch::jit::Node*>(lifetimes.node(at));
      if (!aliases.writesToAlias(node, {value})) continue;
      // Written by node `at`: a pass that starts again before it, up to the last read, would read what was written.
      for (std::size_t cut = made; cut <= std::min(at, last_read); ++cut) allowed[cut] = false;
      break;
    }
  };
  for (const torch::jit::Value* input : graph->inputs()) forbid(input, 1);
  for (std::size_t i = 0; i < lifetimes.count(); ++i) {
    if (lifetimes.node(i)->kind() == c10::prim::GetAttr) continue;  // what the module holds is read as it is
    for (const torch::jit::Value* output : lifetimes.node(i)->outputs()) forbid(output, i + 1);
  }
  allowed[0] = true;
  return allowed;
}

}  // namespace

ResumablePass::ResumablePass(const Network& network, const torch::jit::Module& module, const torch::Tensor& images)
    : module_(module) {
  const torch::NoGradGuard no_grad;
  const std::shared_ptr<torch::jit::Graph> graph = InlinedGraph(module);
  const Lifetimes lifetimes(*graph);
  const std::vector<bool> allowed = AllowedCuts(graph, lifetimes);
  // First as many pieces as there can be, to see in which of them layers run.
  std::vector<std::size_t> begins;
  const std::vector<bool> outside = OutsideOfContexts(lifetimes);
  for (std::size_t i = 0; i < lifetimes.count(); ++i) {
    if (outside[i]) begins.push_back(i);
  }
  Cut(graph, begins);
  begins.push_back(lifetimes.count());
  std::set<std::size_t> chosen = {0};
  std::size_t previous = 0;  // where the layer before ends; 0: there was none, and the first layer needs no cut
  {
    Point point = Begin(images);
    bool runs = false;
    const Tap tap(network, module,
                  {.on_layer_input = [&](std::size_t, const torch::Tensor&) { runs = true; },
                   .on_layer_output = nullptr,
                   .on_batch_norm_input = nullptr});
    while (!AtEnd(point)) {
      std::size_t at = begins[point.piece];
      runs = false;
      Step(point);
      if (!runs) continue;
      const std::size_t after = begins[point.piece];
      while (at > previous && !allowed[at]) --at;
      if (previous > 0 && allowed[at]) chosen.insert(at);
      previous = after;
    }
  }
  Cut(graph, {chosen.begin(), chosen.end()});
}

void ResumablePass::Cut(const std::shared_ptr<torch::jit::Graph>& graph, const std::vector<std::size_t>& begins) {
  pieces_.clear();
  const Lifetimes lifetimes(*graph);
  std::unordered_map<const torch::jit::Value*, std::size_t> slots;
  const auto slot_of = [&](const torch::jit::Value* value) {
    return slots.try_emplace(value, slots.size()).first->second;
  };
  input_slots_.clear();
  for (const torch::jit::Value* input : graph->inputs()) input_slots_.push_back(slot_of(input));
  answer_slot_ = slot_of(graph->outputs()[0]);
  std::map<std::size_t, std::size_t> last_piece;  // that reads a slot
  for (std::size_t p = 0; p < begins.size(); ++p) {
    const std::size_t end = p + 1 < begins.size() ? begins[p + 1] : lifetimes.count();
    const auto part = std::make_shared<torch::jit::Graph>();
    std::unordered_map<const torch::jit::Value*, torch::jit::Value*> inside;
    Piece& piece = pieces_.emplace_back();
    const auto value_in_part = [&](torch::jit::Value* value) {
      const auto [entry, fresh] = inside.try_emplace(value, nullptr);
      if (fresh) {
        entry->second = part->addInput()->copyMetadata(value);
        piece.reads.push_back(slot_of(value));
        last_piece[piece.reads.back()] = p;
      }
      return entry->second;
    };
    for (std::size_t i = begins[p]; i < end; ++i) {
      auto* const node = const_cast<torch::jit::Node*>(lifetimes.node(i));
      torch::jit::Node* const copy = part->insertNode(part->createClone(node, value_in_part));
      for (std::size_t o = 0; o < node->outputs().size(); ++o) inside[node->outputs()[o]] = copy->outputs()[o];
    }
    for (std::size_t i = begins[p]; i < end; ++i) {
      for (const torch::jit::Value* output : lifetimes.node(i)->outputs()) {
        if (lifetimes.LastRead(output) < end) continue;
        part->registerOutput(inside.at(output));
        piece.writes.push_back(slot_of(output));
      }
    }
    piece.code = std::make_unique<torch::jit::Code>(part, "piece_" + std::to_string(p));
  }
  for (const auto& [slot, piece] : last_piece) {
    if (slot != answer_slot_) pieces_[piece].last_read.push_back(slot);
  }
  slots_ = slots.size();
}

ResumablePass::Point ResumablePass::Begin(const torch::Tensor& images) const {
  torch::jit::Stack arguments = {module_._ivalue(), images};
  module_.get_method("forward").function().getSchema().checkAndNormalizeInputs(arguments);
  Point point{0, std::vector<c10::IValue>(slots_)};
  for (std::size_t i = 0; i < input_slots_.size(); ++i) point.values[input_slots_[i]] = arguments.at(i);
  return point;
}

void ResumablePass::Step(Point& point) const {
  const Piece& piece = pieces_.at(point.piece);
  torch::jit::Stack stack;
  for (const std::size_t slot : piece.reads) stack.push_back(point.values[slot]);
  try {
    torch::jit::InterpreterState(*piece.code).run(stack);
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kData, "forward of the model fails for a batch: " + TorchReason(error));
  }
  for (const std::size_t slot : piece.last_read) point.values[slot] = c10::IValue();
  for (std::size_t i = 0; i < piece.writes.size(); ++i) point.values[piece.writes[i]] = std::move(stack[i]);
  ++point.piece;
}

torch::Tensor ResumablePass::Finish(Point point) const {
  while (!AtEnd(point)) Step(point);
  return point.values[answer_slot_].toTensor();
}

}  // namespace bitplan
