#include "bitplan/models/joins.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <limits>
#include <utility>

namespace bitplan {
namespace {

// Remembers what every operation put out, and in which order.
class JoinFinder {
 public:
  explicit JoinFinder(const Network& network)
      : network_(network),
        started_(network.layers.size(), std::numeric_limits<std::size_t>::max()),
        joins_(network.layers.size()),
        sums_(network.layers.size(), 0) {}

  std::vector<std::optional<Join>> Run() {
    using Kind = TensorSource::Kind;
    std::vector<std::int64_t> shape = network_.input_shape;
    shape.insert(shape.begin(), 2);
    torch::jit::Module module = network_.module;
    TapHandlers handlers;
    handlers.on_layer_input = [this](std::size_t layer, const torch::Tensor&) { started_[layer] = events_.size(); };
    handlers.on_layer_output = [this](std::size_t layer, const torch::Tensor& output) {
      if (network_.layers[layer].puts_out_products()) events_.push_back({{Kind::kLayer, layer}, layer, output});
    };
    handlers.on_batch_norm_output = [this](std::size_t norm, const torch::Tensor& input, const torch::Tensor& output,
                                           double) {
      const Event* const before = Find(input);
      const bool of_layer = before != nullptr && before->source.kind == Kind::kLayer;
      events_.push_back({{Kind::kBatchNorm, norm}, of_layer ? before->layer : std::nullopt, output});
    };
    handlers.on_between = [this](std::size_t ordinal, const torch::Tensor& output) {
      events_.push_back({{Kind::kBetween, ordinal}, std::nullopt, output});
    };
    handlers.on_sum = [this](const torch::Tensor& left, const torch::Tensor& right) {
      const Event *const a = Find(left), *const b = Find(right);
      if (a == nullptr || b == nullptr) return;
      Note(*a, *b);
      Note(*b, *a);
    };
    {
      const Tap tap(network_, module, std::move(handlers));
      (void)RunForward(module, torch::zeros(shape, network_.input_type));
    }
    for (std::size_t l = 0; l < joins_.size(); ++l) {
      if (sums_[l] > 1 || network_.layers[l].uses > 1) joins_[l].reset();
    }
    return std::move(joins_);
  }

 private:
  struct Event {
    TensorSource source;
    std::optional<std::size_t> layer;  // whose output this is
    torch::Tensor output;              // kept, so that no other tensor gets its place
  };

  // The last operation that put out this very tensor.
  [[nodiscard]] const Event* Find(const torch::Tensor& tensor) const {
    for (auto event = events_.rbegin(); event != events_.rend(); ++event) {
      const torch::Tensor& output = event->output;
      if (output.data_ptr() != tensor.data_ptr()) continue;
      return output.sizes() == tensor.sizes() && output.strides() == tensor.strides() ? &*event : nullptr;
    }
    return nullptr;
  }

  void Note(const Event& term, const Event& other) {
    if (!term.layer) return;
    ++sums_[*term.layer];
    const auto place = static_cast<std::size_t>(&other - events_.data());
    if (place >= started_[*term.layer]) return;
    Join join{std::nullopt, other.source};
    if (term.source.kind == TensorSource::Kind::kBatchNorm) join.batch_norm = term.source.index;
    joins_[*term.layer] = join;
  }

  const Network& network_;
  std::vector<Event> events_;
  std::vector<std::size_t> started_;  // of every layer, how many events there were before it
  std::vector<std::optional<Join>> joins_;
  std::vector<int> sums_;  // that the output of a layer goes into
};

}  // namespace

std::vector<std::optional<Join>> FindJoins(const Network& network) {
  const torch::NoGradGuard no_grad;
  return JoinFinder(network).Run();
}

void WatchJoins(const std::vector<std::optional<Join>>& joins, TapHandlers& handlers,
                std::function<void(std::size_t layer, const torch::Tensor& other)> on_other) {
  using Kind = TensorSource::Kind;
  std::vector<std::pair<TensorSource, std::size_t>> wanted;
  for (std::size_t l = 0; l < joins.size(); ++l) {
    if (joins[l]) wanted.emplace_back(joins[l]->other, l);
  }
  if (wanted.empty()) return;
  const auto offer = [wanted = std::move(wanted), on_other = std::move(on_other)](TensorSource source,
                                                                                  const torch::Tensor& output) {
    for (const auto& [other, layer] : wanted) {
      if (other == source) on_other(layer, output);
    }
  };
  handlers.on_layer_output = [offer, before = std::move(handlers.on_layer_output)](std::size_t layer,
                                                                                   const torch::Tensor& output) {
    if (before) before(layer, output);
    offer({Kind::kLayer, layer}, output);
  };
  handlers.on_batch_norm_output = [offer, before = std::move(handlers.on_batch_norm_output)](
                                      std::size_t norm, const torch::Tensor& input, const torch::Tensor& output,
                                      double eps) {
    if (before) before(norm, input, output, eps);
    offer({Kind::kBatchNorm, norm}, output);
  };
  handlers.on_between = [offer, before = std::move(handlers.on_between)](std::size_t ordinal,
                                                                         const torch::Tensor& output) {
    if (before) before(ordinal, output);
    offer({Kind::kBetween, ordinal}, output);
  };
}

}  // namespace bitplan
