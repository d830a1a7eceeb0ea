#include "models/operation_matcher.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "bitplan/core/error.h"

namespace bitplan {
namespace {

thread_local OperationObserver* current = nullptr;

struct Taken : at::ObserverContext {
  explicit Taken(bool backward) : backward(backward) {}
  bool backward;
};

// The interpreter hands over its whole stack; the last `count` values belong to the operation.
Operands Last(Operands stack, std::size_t count) {
  return stack.size() > count ? stack.slice(stack.size() - count) : stack;
}

bool IsTensor(Operands operands, std::size_t index, std::int64_t dimensions) {
  return index < operands.size() && operands[index].isTensor() && operands[index].toTensor().defined() &&
         operands[index].toTensor().dim() == dimensions;
}

// How an operator lays its arguments out.
struct ConvolutionForm {
  bool transposed;
  std::size_t dims;  // of the positions
  std::size_t groups, dilation;
  std::optional<std::size_t> output_padding;
};

constexpr const char* kConvolutions[] = {"conv1d", "conv2d", "conv3d"};
constexpr const char* kTransposed[] = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"};

std::optional<ConvolutionForm> ConvolutionOf(std::string_view operation, Operands operands) {
  constexpr std::string_view prefix = "aten::";
  if (!operation.starts_with(prefix)) return std::nullopt;
  operation.remove_prefix(prefix.size());
  for (std::size_t dims = 1; dims <= std::size(kConvolutions); ++dims) {
    if (!IsTensor(operands, 1, static_cast<std::int64_t>(dims) + 2)) continue;
    if (operation == kConvolutions[dims - 1]) return ConvolutionForm{false, dims, 6, 5, std::nullopt};
    if (operation.starts_with(kTransposed[dims - 1])) return ConvolutionForm{true, dims, 6, 7, 5};
    if (operation != "convolution" && operation != "_convolution") continue;
    const bool transposed = operands.size() > 6 && operands[6].isBool() && operands[6].toBool();
    return ConvolutionForm{transposed, dims, 8, 5, 7};
  }
  return std::nullopt;
}

std::int64_t GroupsOf(const ConvolutionForm& form, Operands operands) {
  return form.groups < operands.size() && operands[form.groups].isInt() ? operands[form.groups].toInt() : 1;
}

// Which dimension of a convolution's weight counts output channels.
std::optional<int> ChannelDimension(const ConvolutionForm& form, Operands operands) {
  if (!form.transposed) return 0;
  const std::int64_t groups = GroupsOf(form, operands);
  if (groups == 1) return 1;
  const at::Tensor& weight = operands[1].toTensor();
  return weight.size(0) == groups && weight.size(1) == 1 ? std::optional<int>(0) : std::nullopt;
}

// Whether `view` are some rows and some columns of `whole`, both 2-d.
bool IsBlockOf(const at::Tensor& view, const at::Tensor& whole) {
  const std::int64_t columns = whole.size(1);
  if (view.numel() == 0 || !whole.is_contiguous()) return false;
  if (!view.has_storage() || !whole.has_storage() || !view.storage().is_alias_of(whole.storage())) return false;
  if ((view.size(0) > 1 && view.stride(0) != columns) || (view.size(1) > 1 && view.stride(1) != 1)) return false;
  const std::int64_t first = view.storage_offset() - whole.storage_offset();
  return first >= 0 && first / columns + view.size(0) <= whole.size(0) && first % columns + view.size(1) <= columns;
}

}  // namespace

bool IsGroupedTransposed(std::string_view operation, Operands operands) {
  const auto form = ConvolutionOf(operation, operands);
  return form && !ChannelDimension(*form, operands);
}

std::optional<LayerForm> FormOf(std::string_view operation, Operands operands) {
  std::optional<LayerForm> form;
  if (const auto convolution = ConvolutionOf(operation, operands)) {
    const auto* const names = convolution->transposed ? kTransposed : kConvolutions;
    if (const auto channels = ChannelDimension(*convolution, operands)) {
      form = {names[convolution->dims - 1], 0, 1, 2, *channels};
    }
  } else if (operation == "aten::embedding") {
    if (IsTensor(operands, 0, 2)) form = {"embedding", 1, 0, std::nullopt, 0};
  } else if (operation == "aten::linear") {
    if (IsTensor(operands, 1, 2)) form = {"linear", 0, 1, 2, 0};
  } else if (operation == "aten::addmm") {
    const bool plain_bias = operands.size() > 3 && operands[3].isScalar() && operands[3].toScalar().toDouble() == 1.0;
    if (IsTensor(operands, 2, 2)) form = {"linear", 1, 2, plain_bias ? std::optional<std::size_t>(0) : std::nullopt, 1};
  } else if (operation == "aten::matmul" || operation == "aten::mm") {
    if (IsTensor(operands, 1, 2)) form = {"linear", 0, 1, std::nullopt, 1};
  }
  return form;
}

std::optional<LayerWindow> WindowOf(std::string_view operation, Operands operands) {
  const auto form = ConvolutionOf(operation, operands);
  if (!form || operands.size() <= std::max(form->groups, form->dilation)) return std::nullopt;
  for (const std::size_t i : {std::size_t{3}, std::size_t{4}, form->dilation}) {
    if (!operands[i].isIntList()) return std::nullopt;
  }
  LayerWindow window{operands[3].toIntVector(), operands[4].toIntVector(), operands[form->dilation].toIntVector(),
                     GroupsOf(*form, operands), form->transposed};
  std::vector<std::vector<std::int64_t>*> all = {&window.stride, &window.padding, &window.dilation};
  if (form->transposed) {
    if (!operands[*form->output_padding].isIntList()) return std::nullopt;
    window.output_padding = operands[*form->output_padding].toIntVector();
    all.push_back(&window.output_padding);
  }
  for (auto* numbers : all) {
    if (numbers->size() == 1) numbers->resize(form->dims, numbers->front());
    if (numbers->size() != form->dims) return std::nullopt;
  }
  return window;
}

std::optional<int> OutputDim(const LayerForm& form, const at::Tensor& operand, const at::Tensor& parameter) {
  if (operand.dim() != parameter.dim() || operand.scalar_type() != parameter.scalar_type()) return std::nullopt;
  const auto is_whole = [&](const at::Tensor& view) {
    return view.data_ptr() == parameter.data_ptr() && view.sizes() == parameter.sizes() &&
           view.strides() == parameter.strides();
  };
  if (is_whole(operand)) return form.output_dim;
  if (operand.dim() != 2) return std::nullopt;
  const at::Tensor transposed = operand.t();
  if (is_whole(transposed) || !IsBlockOf(operand, parameter)) {
    const bool turned = is_whole(transposed) || IsBlockOf(transposed, parameter);
    return turned ? std::optional<int>(1 - form.output_dim) : std::nullopt;
  }
  return form.output_dim;
}

std::optional<RecurrentForm> RecurrentOf(std::string_view operation, Operands operands) {
  constexpr std::string_view prefix = "aten::", cell = "_cell";
  if (!operation.starts_with(prefix)) return std::nullopt;
  operation.remove_prefix(prefix.size());
  const bool is_cell = operation.ends_with(cell);
  if (is_cell) operation.remove_suffix(cell.size());
  const char* const kind = operation == "lstm"                                  ? "lstm"
                           : operation == "gru"                                 ? "gru"
                           : operation == "rnn_tanh" || operation == "rnn_relu" ? "rnn"
                                                                                : nullptr;
  if (kind == nullptr || operands.size() < 4 || !operands[0].isTensor() || operands[0].toTensor().dim() < 1) {
    return std::nullopt;
  }
  RecurrentForm form{kind, operands[0].toTensor(), {}};
  if (is_cell) {  // input, state, weight of the input, weight of the state, biases
    if (!IsTensor(operands, 2, 2) || !IsTensor(operands, 3, 2)) return std::nullopt;
    form.weights = {{operands[2].toTensor(), true}, {operands[3].toTensor(), false}};
    return form;
  }
  // input, (sizes of the batches of a packed one), state or states, weights, has biases, layers, dropout, training,
  // both directions
  const bool packed =
      operands[1].isTensor() && (operands[2].isTensorList() || operands[2].isTensor()) && operands[3].isTensorList();
  const std::size_t at = packed ? 3 : 2;
  if (operands.size() < at + 6 || !operands[at].isTensorList() || !operands[at + 2].isInt() ||
      !operands[at + 5].isBool()) {
    return std::nullopt;
  }
  const std::vector<at::Tensor> all = operands[at].toTensorVector();
  const std::size_t directions = operands[at + 5].toBool() ? 2 : 1;
  const std::size_t cells = static_cast<std::size_t>(std::max<std::int64_t>(operands[at + 2].toInt(), 1)) * directions;
  if (all.empty() || all.size() % cells != 0) return std::nullopt;
  const std::size_t of_cell = all.size() / cells;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!all[i].defined() || all[i].dim() != 2) continue;
    form.weights.push_back({all[i], i < directions * of_cell && i % of_cell == 0});
  }
  return form;
}

std::optional<BatchNormForm> BatchNormOf(std::string_view operation, Operands operands) {
  if (operation != "aten::batch_norm" && operation != "aten::native_batch_norm" &&
      operation != "aten::_batch_norm_impl_index") {
    return std::nullopt;
  }
  if (!IsTensor(operands, 3, 1) || !IsTensor(operands, 4, 1)) return std::nullopt;
  return BatchNormForm{0, 3, 4, 5, 7};
}

OperationObserver::OperationObserver(Enter enter, Leave leave) : enter_(std::move(enter)), leave_(std::move(leave)) {
  if (current != nullptr) throw Error(ErrorKind::kInternal, "a thread can watch the layers of one network at a time");
  current = this;
  handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&OnStart, &OnEnd)
                                           .needsInputs(true)
                                           .needsOutputs(true)
                                           .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
}

OperationObserver::~OperationObserver() {
  at::removeCallback(handle_);
  current = nullptr;
}

void OperationObserver::Rethrow() {
  if (failure_ != nullptr) std::rethrow_exception(std::exchange(failure_, nullptr));
}

template <typename Handler>
void OperationObserver::Run(Handler&& handler) {
  if (failure_ != nullptr) return;
  try {
    handler();
  } catch (...) {
    failure_ = std::current_exception();
  }
}

std::unique_ptr<at::ObserverContext> OperationObserver::OnStart(const at::RecordFunction& function) {
  OperationObserver* observer = current;
  if (observer == nullptr || observer->busy_) return nullptr;
  observer->busy_ = true;
  const bool backward = function.scope() == at::RecordScope::BACKWARD_FUNCTION;
  bool taken = backward;
  if (!backward)
    observer->Run([&] { taken = observer->enter_(function.name(), Last(function.inputs(), function.num_inputs())); });
  observer->busy_ = taken;
  return taken ? std::make_unique<Taken>(backward) : nullptr;
}

void OperationObserver::OnEnd(const at::RecordFunction& function, at::ObserverContext* context) {
  OperationObserver* observer = current;
  const auto* taken = dynamic_cast<Taken*>(context);
  if (observer == nullptr || taken == nullptr) return;
  if (!taken->backward) {
    const Operands stack(function.outputs().data(), function.outputs().size());
    observer->Run([&] { observer->leave_(Last(stack, function.num_outputs())); });
  }
  observer->busy_ = false;
}

}  // namespace bitplan
