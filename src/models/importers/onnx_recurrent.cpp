// LSTM, GRU and plain recurrent layers, as LibTorch's: one operation, weights with the gates in its order.
#include <fmt/format.h>

#include <string>

#include "models/importers/onnx_call.h"

namespace bitplan::onnx_import {
namespace {

struct Kind {
  const char* operation;
  std::vector<std::int64_t> gates;  // place in the file of every gate of LibTorch
};

struct Layout {
  std::int64_t directions, hidden, inputs;
  bool reverse;
};

Layout LayoutOf(const OnnxCall& call, const Kind& kind) {
  const std::string direction = call.Text("direction", "forward");
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional") {
    call.Refuse("has an unknown direction");
  }
  Layout shape{direction == "bidirectional" ? 2 : 1, call.Int("hidden_size", 0), 0, direction == "reverse"};
  const auto gates = static_cast<std::int64_t>(kind.gates.size());
  const torch::Tensor input = call.ConstantIn(1), recurrent = call.ConstantIn(2);
  if (shape.hidden < 1 || input.dim() != 3 || recurrent.dim() != 3 || call.In(0)->rank() != 3) {
    call.Refuse("has weights or inputs that are not of three dimensions");
  }
  shape.inputs = input.size(2);
  const bool fits = input.size(0) == shape.directions && recurrent.size(0) == shape.directions &&
                    input.size(1) / gates == shape.hidden && input.size(1) % gates == 0 &&
                    recurrent.size(1) == input.size(1) && recurrent.size(2) == shape.hidden;
  if (!fits || call.In(0)->tensor().size(2) != shape.inputs) {
    call.Refuse("has weights that do not fit its input, hidden_size and direction");
  }
  return shape;
}

void CheckPlain(const OnnxCall& call) {
  for (const char* const unknown : {"activation_alpha", "activation_beta", "clip"}) {
    if (call.HasAttribute(unknown)) call.Refuse(fmt::format("has {}, which bitplan does not translate", unknown));
  }
  if (call.Int("input_forget", 0) != 0) call.Refuse("couples input and forget gate");
  if (call.Int("layout", 0) != 0) call.Refuse("has the batch first (layout=1)");
  if (call.Has(4)) call.Refuse("has lengths of sequences");
  if (call.Has(7)) call.Refuse("has peepholes");
}

// Rows of the gates in LibTorch's order.
torch::Tensor InOrder(const torch::Tensor& rows, const Kind& kind, std::int64_t hidden) {
  std::vector<torch::Tensor> gates;
  for (const std::int64_t gate : kind.gates) gates.push_back(rows.narrow(0, gate * hidden, hidden));
  return torch::cat(gates).contiguous();
}

std::vector<OnnxValue> WeightsOf(const OnnxCall& call, const Kind& kind, const Layout& shape) {
  const auto rows = static_cast<std::int64_t>(kind.gates.size()) * shape.hidden;
  torch::Tensor biases = torch::zeros({shape.directions, 2 * rows});
  if (call.Has(3)) biases = call.ConstantIn(3);
  if (biases.dim() != 2 || biases.size(0) != shape.directions || biases.size(1) != 2 * rows) {
    call.Refuse("has biases that do not fit its weights");
  }
  std::string name = call.node().name;
  while (name.starts_with('/')) name.erase(0, 1);
  if (name.empty()) name = call.In(1)->name;
  std::vector<OnnxValue> weights;
  const auto add = [&](const torch::Tensor& part, const char* which, std::int64_t direction) {
    const OnnxValue weight = call.graph().Constant(
        InOrder(part, kind, shape.hidden), fmt::format("{}.{}_l0{}", name, which, direction == 1 ? "_reverse" : ""));
    weight->parameter = true;
    weights.push_back(weight);
  };
  for (std::int64_t d = 0; d < shape.directions; ++d) {
    add(call.ConstantIn(1)[d], "weight_ih", d);
    add(call.ConstantIn(2)[d], "weight_hh", d);
    add(biases[d].narrow(0, 0, rows), "bias_ih", d);
    add(biases[d].narrow(0, rows, rows), "bias_hh", d);
  }
  return weights;
}

// [directions, batch, hidden]; one that the file fixes to a batch of one is there for every image.
OnnxValue Initial(const OnnxCall& call, std::size_t input, const Layout& shape) {
  const Number batch = call.graph().SizesOf(call.In(0))[1];
  const Numbers sizes = {shape.directions, batch, shape.hidden};
  if (!call.Has(input)) return call.Run("full", {sizes, 0.0}, {{"dtype", static_cast<std::int64_t>(torch::kFloat)}});
  const OnnxValue& state = call.In(input);
  const bool fits = state->rank() == 3 && state->tensor().size(0) == shape.directions &&
                    state->tensor().size(2) == shape.hidden &&
                    (state->tensor().size(1) == 1 || state->tensor().size(1) == batch.at(0));
  if (!fits) call.Refuse("has an initial state that does not fit its weights");
  return state->tensor().size(1) == 1 && !batch.constant() ? call.Run("expand", {state, sizes}) : state;
}

std::vector<OnnxValue> Recurrent(const OnnxCall& call, const Kind& kind, bool has_cell) {
  CheckPlain(call);
  const Layout shape = LayoutOf(call, kind);
  OnnxValue x = call.In(0);
  if (shape.reverse) x = call.Run("flip", {x, Numbers{0}});
  const OnnxValue h = Initial(call, 5, shape);
  Arguments arguments = {x};
  if (has_cell) {
    arguments.emplace_back(std::vector<OnnxValue>{h, Initial(call, 6, shape)});
  } else {
    arguments.emplace_back(h);
  }
  arguments.emplace_back(WeightsOf(call, kind, shape));
  for (const Argument& more : Arguments{true, 1, 0.0, false, shape.directions == 2, false}) arguments.push_back(more);
  std::vector<OnnxValue> made = call.graph().RunMany(kind.operation, arguments);
  // [time, batch, directions * hidden] to [time, directions, batch, hidden].
  OnnxValue y = made[0];
  if (shape.directions == 1) {
    if (shape.reverse) y = call.Run("flip", {y, Numbers{0}});
    y = call.Run("unsqueeze", {y, 1});
  } else {
    const Numbers sizes = call.graph().SizesOf(y);
    y = call.Run("reshape", {y, Numbers{sizes[0], sizes[1], shape.directions, shape.hidden}});
    y = call.Run("transpose", {y, 1, 2});
  }
  made[0] = y;
  return made;
}

void CheckActivations(const OnnxCall& call, const std::vector<std::string>& usual) {
  const auto stated = call.Texts("activations");
  if (!stated) return;
  for (std::size_t i = 0; i < stated->size(); ++i) {
    if (stated->at(i) != usual[i % usual.size()]) call.Refuse("has activations other than the usual ones");
  }
}

std::vector<OnnxValue> Lstm(const OnnxCall& call) {
  CheckActivations(call, {"Sigmoid", "Tanh", "Tanh"});
  return Recurrent(call, {"lstm", {0, 2, 3, 1}}, /*has_cell=*/true);  // input, output, forget, cell in the file
}

std::vector<OnnxValue> Gru(const OnnxCall& call) {
  CheckActivations(call, {"Sigmoid", "Tanh"});
  if (call.Int("linear_before_reset", 0) == 0) {
    call.Refuse("resets before its linear layer (linear_before_reset=0), which LibTorch does not");
  }
  return Recurrent(call, {"gru", {1, 0, 2}}, /*has_cell=*/false);  // update, reset, hidden in the file
}

std::vector<OnnxValue> Rnn(const OnnxCall& call) {
  const auto stated = call.Texts("activations");
  const std::string function = stated && !stated->empty() ? stated->front() : "Tanh";
  CheckActivations(call, {function});
  if (function != "Tanh" && function != "Relu") call.Refuse("has activations other than the usual ones");
  return Recurrent(call, {function == "Tanh" ? "rnn_tanh" : "rnn_relu", {0}}, /*has_cell=*/false);
}

}  // namespace

void AddRecurrent(OnnxTranslators& all) {
  all["LSTM"] = Lstm;
  all["GRU"] = Gru;
  all["RNN"] = Rnn;
}

}  // namespace bitplan::onnx_import
