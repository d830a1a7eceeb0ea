#include "posterior/batches.h"

#include <torch/torch.h>

#include <algorithm>

namespace bitplan {

GradientScope::GradientScope(const Network& network) {
  for (const torch::Tensor& parameter : network.module.parameters()) {
    flags_.emplace_back(parameter, parameter.requires_grad());
    flags_.back().first.set_requires_grad(false);
  }
  for (const Layer& layer : network.layers) {
    weights_.push_back(GetTensor(network.module, layer.parameter));
    weights_.back().set_requires_grad(true);
  }
}

GradientScope::~GradientScope() {
  for (auto& [parameter, flag] : flags_) parameter.set_requires_grad(flag);
}

torch::Tensor DrawSamples(const Dataset& data, std::int64_t samples, RandomStream& stream) {
  std::vector<std::int64_t> order = stream.Permutation(data.size());
  order.resize(static_cast<std::size_t>(std::min<std::int64_t>(samples, data.size())));
  return torch::tensor(order, torch::kInt64);
}

torch::Tensor SampleLabels(const torch::Tensor& logits, RandomStream& stream) {
  const torch::Tensor cumulative = logits.detach().to(torch::kFloat64).softmax(1).cumsum(1).contiguous();
  const std::int64_t n = cumulative.size(0);
  const std::int64_t classes = cumulative.size(1);
  torch::Tensor labels = torch::empty({n}, torch::kInt64);
  const double* const rows = cumulative.data_ptr<double>();
  for (std::int64_t i = 0; i < n; ++i) {
    const double* const row = rows + i * classes;
    const double draw = stream.Uniform() * row[classes - 1];
    labels.data_ptr<std::int64_t>()[i] = std::min(std::upper_bound(row, row + classes, draw) - row, classes - 1);
  }
  return labels;
}

torch::Tensor SampledLabelLoss(torch::jit::Module& module, const torch::Tensor& images, RandomStream& stream) {
  const torch::Tensor logits = module.forward({images}).toTensor();
  return torch::nll_loss(logits.log_softmax(1), SampleLabels(logits, stream), {}, at::Reduction::Sum);
}

}  // namespace bitplan
