// Sees the operations of a forward pass and tells which of them multiply by a weight. Shared by the search for layers
// (recorded_pass.cpp) and by the tap on them (tap.cpp), so that both agree on what a layer is.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "bitplan/models/network.h"

namespace bitplan {

using Operands = c10::ArrayRef<const c10::IValue>;

// Where an operation that may be a layer keeps its operands.
struct LayerForm {
  const char* kind;    // Layer::kind
  std::size_t input;   // index of the activations among the operands
  std::size_t weight;  // index of the weight
  std::optional<std::size_t> bias;
  int output_dim;  // dimension of the weight operand that counts output channels
};

// Convolutions over 3-d to 5-d weights, transposed ones too; linear, addmm, matmul, mm and embedding over 2-d weights.
// No transposed convolution with groups unless they have one input and one output channel each (depthwise): a scale for
// every output channel is then a scale for every index of one dimension.
[[nodiscard]] std::optional<LayerForm> FormOf(std::string_view operation, Operands operands);
// A transposed convolution with other groups.
[[nodiscard]] bool IsGroupedTransposed(std::string_view operation, Operands operands);

// Which dimension of the stored parameter counts output channels when `operand` is that parameter or, for 2-d, a block
// of it (some rows, some columns), transposed or not. Empty when it is another view (or another tensor).
[[nodiscard]] std::optional<int> OutputDim(const LayerForm& form, const at::Tensor& operand,
                                           const at::Tensor& parameter);

// A weight of an operation that keeps a state. [gates * hidden, in]: a scale for every row is one for every output of
// every gate.
struct RecurrentWeight {
  at::Tensor weight;
  bool meets_input;  // multiplies the operation's input; otherwise its state or what one of its own layers put out
};

struct RecurrentForm {
  const char* kind;  // Layer::kind: lstm, gru, rnn
  at::Tensor input;  // [time, batch, in], [batch, time, in], packed [rows, in], or of a cell [batch, in]
  std::vector<RecurrentWeight> weights;

  // Every row meets every weight once: a time step of one sequence.
  [[nodiscard]] std::int64_t rows() const { return input.size(-1) == 0 ? 0 : input.numel() / input.size(-1); }
};

// lstm, gru, rnn_tanh and rnn_relu, over padded and over packed sequences, and the cells of one time step.
[[nodiscard]] std::optional<RecurrentForm> RecurrentOf(std::string_view operation, Operands operands);

// The window of a convolution that FormOf knows. Empty when the padding is a word, such as "same".
[[nodiscard]] std::optional<LayerWindow> WindowOf(std::string_view operation, Operands operands);

struct BatchNormForm {
  std::size_t input;
  std::size_t running_mean;
  std::size_t running_var;
  std::size_t training;
  std::size_t eps;
};

// Batch norm with running statistics.
[[nodiscard]] std::optional<BatchNormForm> BatchNormOf(std::string_view operation, Operands operands);

// Reports the operations of the calling thread while it lives; one observer per thread. Operations inside a taken one,
// inside a backward pass and inside the handlers themselves are not reported. For its lifetime TorchScript runs the
// plain graph of a method, not a fused one, so that layers are seen as written.
class OperationObserver {
 public:
  // Before an operation: true takes it, so that `leave` is called after it and nothing inside it is reported.
  using Enter = std::function<bool(std::string_view operation, Operands operands)>;
  // After a taken operation; no outputs when it threw.
  using Leave = std::function<void(Operands outputs)>;

  OperationObserver(Enter enter, Leave leave);
  ~OperationObserver();
  OperationObserver(const OperationObserver&) = delete;
  OperationObserver& operator=(const OperationObserver&) = delete;

  // LibTorch swallows what a handler throws; the first such exception is kept and thrown here.
  void Rethrow();

 private:
  static std::unique_ptr<at::ObserverContext> OnStart(const at::RecordFunction& function);
  static void OnEnd(const at::RecordFunction& function, at::ObserverContext* context);
  template <typename Handler>
  void Run(Handler&& handler);

  Enter enter_;
  Leave leave_;
  bool busy_ = false;  // inside a taken operation or a handler
  std::exception_ptr failure_;
  torch::jit::GraphOptimizerEnabledGuard plain_graphs_{false};
  at::CallbackHandle handle_;
};

}  // namespace bitplan
