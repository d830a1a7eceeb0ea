#include "posterior/batches.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <algorithm>

#include "bitplan/core/error.h"

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

void RequireGradients(const Network& network, const Dataset& data, const Normalizer& normalizer) {
  const GradientScope scope(network);
  torch::jit::Module module = network.module;
  const torch::Tensor logits = module.forward({normalizer.Apply(data.Head(1).images)}).toTensor();
  std::vector<torch::Tensor> gradients(scope.weights().size());
  if (logits.requires_grad()) {
    gradients = torch::autograd::grad({logits.sum()}, scope.weights(), {}, /*retain_graph=*/false,
                                      /*create_graph=*/false, /*allow_unused=*/true);
  }
  for (std::size_t l = 0; l < gradients.size(); ++l) {
    if (gradients[l].defined()) continue;
    throw Error(ErrorKind::kData, "no gradient of " + network.name + " reaches layer " + network.layers[l].name +
                                      ": save it without torch.no_grad() and detach() in its forward");
  }
}

torch::Tensor DrawSamples(const Dataset& data, std::int64_t samples, RandomStream& stream) {
  std::vector<std::int64_t> order = stream.Permutation(data.size());
  order.resize(static_cast<std::size_t>(std::min<std::int64_t>(samples, data.size())));
  return torch::tensor(order, torch::kInt64);
}

torch::Tensor RandomSigns(const torch::Tensor& like, RandomStream& stream) {
  torch::Tensor signs = torch::empty(like.sizes(), torch::kFloat32);
  auto* const values = signs.data_ptr<float>();
  std::uint64_t word = 0;
  for (std::int64_t i = 0; i < signs.numel(); ++i, word >>= 1) {
    if (i % 64 == 0) word = stream.Next();
    values[i] = (word & 1) != 0 ? 1.0F : -1.0F;
  }
  return signs;
}

torch::Tensor FisherSketch(torch::jit::Module& module, const torch::Tensor& images, RandomStream& stream) {
  const torch::Tensor logits = module.forward({images}).toTensor();
  const torch::Tensor p = logits.detach().softmax(1);
  const torch::Tensor root_signs = p.sqrt() * RandomSigns(p, stream);
  return (logits * (root_signs - p * root_signs.sum(1, /*keepdim=*/true))).sum();
}

}  // namespace bitplan
