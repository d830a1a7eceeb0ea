// LSTM, GRU and plain recurrent operations. ONNX has one operation for every layer, with another order of the gates:
// their rows are put into it behind DequantizeLinear, so that integers and scales stay those of the module.
#include "exporters/onnx_operators.h"

namespace bitplan::onnx_operators {
namespace {

struct RecurrentKind {
  const char* type;
  Numbers gates;  // of every gate of ONNX its place in LibTorch
  bool has_cell = false;
  std::vector<onnx_file::Attribute> attributes;
};

RecurrentKind KindOf(const OnnxCall& call) {
  const std::string name = call.Operator();
  // LibTorch has input, forget, cell, output; ONNX input, output, forget, cell.
  if (name.starts_with("lstm")) return {"LSTM", {0, 3, 1, 2}, true, {}};
  // LibTorch has reset, update, new; ONNX update, reset, hidden.
  if (name.starts_with("gru")) return {"GRU", {1, 0, 2}, false, {{"linear_before_reset", std::int64_t{1}}}};
  return {"RNN", {0}, false, {}};
}

// The weights of one layer and direction, as the operation has them.
struct CellWeights {
  torch::Tensor input_bias, state_bias;  // undefined without biases
  std::string input, state;              // names
};

class RecurrentLayer {
 public:
  RecurrentLayer(const OnnxCall& call, const RecurrentKind& kind, std::int64_t hidden)
      : call_(call), kind_(kind), hidden_(hidden) {}

  // `x`: [time, batch, in]; `states`: initial ones, [directions, batch, hidden] each, "" for zeros. The outputs:
  // [time, directions, batch, hidden], then the last states.
  [[nodiscard]] Names Add(const std::string& x, const std::vector<CellWeights>& directions, const Names& states) const {
    OnnxGraph& graph = call_.graph();
    Names input, state;
    std::vector<torch::Tensor> biases;
    for (const CellWeights& cell : directions) {
      input.push_back(InOrder(cell.input));
      state.push_back(InOrder(cell.state));
      if (!cell.input_bias.defined()) continue;
      biases.push_back(torch::cat({InOrder(cell.input_bias), InOrder(cell.state_bias)}));
    }
    Names inputs = {x, Joined(input), Joined(state), biases.empty() ? "" : graph.Constant(torch::stack(biases)), ""};
    inputs.insert(inputs.end(), states.begin(), states.end());
    while (inputs.back().empty()) inputs.pop_back();
    std::vector<onnx_file::Attribute> attributes = kind_.attributes;
    attributes.push_back({"hidden_size", hidden_});
    attributes.push_back({"direction", std::string(directions.size() == 2 ? "bidirectional" : "forward")});
    if (call_.Operator().starts_with("rnn_relu")) {
      attributes.push_back({"activations", std::vector<std::string>(directions.size(), "Relu")});
    }
    return graph.AddMany(kind_.type, inputs, attributes, kind_.has_cell ? 3 : 2);
  }

 private:
  [[nodiscard]] std::string InOrder(const std::string& rows) const {
    if (kind_.gates.size() == 1) return rows;
    const Names parts = call_.graph().AddMany("Split", {rows, call_.graph().Ints(Numbers(kind_.gates.size(), hidden_))},
                                              {{"axis", std::int64_t{0}}}, kind_.gates.size());
    Names ordered;
    for (const std::int64_t gate : kind_.gates) ordered.push_back(parts[static_cast<std::size_t>(gate)]);
    return call_.graph().Add("Concat", ordered, {{"axis", std::int64_t{0}}});
  }

  [[nodiscard]] torch::Tensor InOrder(const torch::Tensor& bias) const {
    std::vector<torch::Tensor> ordered;
    for (const std::int64_t gate : kind_.gates) ordered.push_back(bias.narrow(0, gate * hidden_, hidden_));
    return torch::cat(ordered);
  }

  // [directions, rows, columns]
  [[nodiscard]] std::string Joined(const Names& matrices) const {
    OnnxGraph& graph = call_.graph();
    Names raised;
    for (const std::string& matrix : matrices) raised.push_back(graph.Add("Unsqueeze", {matrix, graph.Ints({0})}));
    return raised.size() == 1 ? raised.front() : graph.Add("Concat", raised, {{"axis", std::int64_t{0}}});
  }

  const OnnxCall& call_;
  const RecurrentKind& kind_;
  std::int64_t hidden_;
};

bool IsZero(const c10::IValue& value) {
  for (const torch::Tensor& tensor : TensorsIn({value})) {
    if (tensor.count_nonzero().item<std::int64_t>() != 0) return false;
  }
  return true;
}

std::string Rows(const OnnxCall& call, const std::string& from, std::int64_t begin, std::int64_t end) {
  OnnxGraph& graph = call.graph();
  return graph.Add("Slice", {from, graph.Ints({begin}), graph.Ints({end}), graph.Ints({0})});
}

// lstm, gru, rnn_tanh, rnn_relu
Names Recurrent(const OnnxCall& call) {
  if (!call.Has("input")) call.Refuse("takes packed sequences");
  if (call.Depends("params")) call.Refuse("has weights that depend on the input");
  if (call.Flag("train") && call.Real("dropout", 0.0) > 0.0) call.Refuse("drops out at random");
  OnnxGraph& graph = call.graph();
  const RecurrentKind kind = KindOf(call);
  const std::vector<torch::Tensor> weights = call.Value("params").toTensorVector();
  const std::int64_t layers = call.Int("num_layers"), directions = call.Flag("bidirectional") ? 2 : 1;
  const bool biases = call.Flag("has_biases"), batch_first = call.Flag("batch_first");
  const std::size_t of_cell = biases ? 4 : 2;
  if (weights.size() != of_cell * static_cast<std::size_t>(layers * directions)) call.Refuse("projects its states");
  const std::int64_t hidden = weights[1].size(1);
  const RecurrentLayer layer(call, kind, hidden);
  Names initial;
  if (call.Depends("hx") || !IsZero(call.Value("hx"))) {
    initial = kind.has_cell ? call.NamesIn("hx") : Names{call.Name("hx")};
  }
  Extents sizes = call.SizesOf("input");
  std::string x = call.Name("input");
  if (batch_first) {
    std::swap(sizes[0], sizes[1]);
    x = graph.Add("Transpose", {x}, {{"perm", Numbers{1, 0, 2}}});
  }
  sizes[2] = {directions * hidden, directions * hidden};
  std::vector<Names> last;  // states of every layer
  for (std::int64_t l = 0; l < layers; ++l) {
    std::vector<CellWeights> cells;
    for (std::int64_t d = 0; d < directions; ++d) {
      const std::size_t at = of_cell * static_cast<std::size_t>(l * directions + d);
      cells.push_back({biases ? weights[at + 2] : torch::Tensor(), biases ? weights[at + 3] : torch::Tensor(),
                       call.NameInList("params", at), call.NameInList("params", at + 1)});
    }
    Names states;
    for (const std::string& all : initial) {
      states.push_back(layers == 1 ? all : Rows(call, all, l * directions, (l + 1) * directions));
    }
    const Names made = layer.Add(x, cells, states);
    x = graph.Reshape(graph.Add("Transpose", {made[0]}, {{"perm", Numbers{0, 2, 1, 3}}}), sizes);
    last.emplace_back(made.begin() + 1, made.end());
  }
  if (batch_first) x = graph.Add("Transpose", {x}, {{"perm", Numbers{1, 0, 2}}});
  Names outputs = {x};
  for (std::size_t s = 0; s < last.front().size(); ++s) {
    Names all;
    for (const Names& states : last) all.push_back(states[s]);
    outputs.push_back(all.size() == 1 ? all.front() : graph.Add("Concat", all, {{"axis", std::int64_t{0}}}));
  }
  return outputs;
}

// lstm_cell, gru_cell, rnn_tanh_cell, rnn_relu_cell: one time step.
Names Cell(const OnnxCall& call) {
  if (call.Depends("w_ih") || call.Depends("w_hh")) call.Refuse("has weights that depend on the input");
  OnnxGraph& graph = call.graph();
  const RecurrentKind kind = KindOf(call);
  const auto raised = [&](const std::string& name) { return graph.Add("Unsqueeze", {name, graph.Ints({0})}); };
  Names states;
  for (const std::string& state : kind.has_cell ? call.NamesIn("hx") : Names{call.Name("hx")}) {
    states.push_back(raised(state));
  }
  const RecurrentLayer layer(call, kind, call.Tensor("w_hh").size(1));
  const bool biases = call.Has("b_ih");
  const Names made = layer.Add(raised(call.Name("input")),
                               {{biases ? call.Tensor("b_ih") : torch::Tensor(),
                                 biases ? call.Tensor("b_hh") : torch::Tensor(), call.Name("w_ih"), call.Name("w_hh")}},
                               states);
  Names outputs;
  for (std::size_t i = 1; i < made.size(); ++i) outputs.push_back(graph.Add("Squeeze", {made[i], graph.Ints({0})}));
  return outputs;
}

}  // namespace

void AddRecurrent(OnnxTranslators& all) {
  for (const char* name : {"lstm", "gru", "rnn_tanh", "rnn_relu"}) all[name] = Recurrent;
  for (const char* name : {"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}) all[name] = Cell;
}

}  // namespace bitplan::onnx_operators
