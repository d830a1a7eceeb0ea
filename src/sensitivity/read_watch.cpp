#include "sensitivity/read_watch.h"

#include <algorithm>
#include <utility>

#include "models/layer_reads.h"

namespace bitplan {

ReadWatch::ReadWatch(const Network& network, const std::vector<std::size_t>& tensors,
                     std::function<void(std::size_t layer, const torch::Tensor& input)> on_input)
    : network_(network),
      tensors_(tensors),
      has_place_(LayersRead(network)),
      on_input_(std::move(on_input)),
      tap_(network, network.module, Handlers()) {}

TapHandlers ReadWatch::Handlers() {
  TapHandlers handlers;
  handlers.on_layer_input = [this](std::size_t layer, const torch::Tensor& input) {
    if (!input.is_floating_point() || !network_.layers[layer].rounds_input() || !has_place_[layer]) return;
    if (on_input_) on_input_(layer, input);
    const auto same = [&](const Read& read) {
      return read.values.unsafeGetTensorImpl() == input.unsafeGetTensorImpl();
    };
    if (std::any_of(reads_.begin(), reads_.end(), same)) return;  // several layers read it, or one twice
    if (torch::GradMode::is_enabled() && !input.requires_grad() && input.is_leaf()) {
      input.set_requires_grad(true);  // the images themselves, or a tensor of the model
      flagged_.push_back(input);
    }
    reads_.push_back({tensors_[layer], input});
  };
  return handlers;
}

std::vector<ReadWatch::Read> ReadWatch::Take() { return std::exchange(reads_, {}); }

void ReadWatch::Forget() {
  for (torch::Tensor& leaf : flagged_) leaf.set_requires_grad(false);
  flagged_.clear();
}

}  // namespace bitplan
