#include "likelihoods/categorical.h"

namespace bitplan {

torch::Tensor HaveProbabilities(const torch::Tensor& logits) {
  const torch::Tensor values = logits.detach();
  // A maximum is NaN where a value is, +inf where one is, and -inf where all are.
  return values.amax(1).isfinite();
}

torch::Tensor RowDivergences(const torch::Tensor& log_p, const torch::Tensor& log_q) {
  const torch::Tensor p = log_p.exp(), difference = log_p - log_q;
  // Chosen before it is multiplied, so that gradients stay finite too.
  return (p * torch::where(p.gt(0.0), difference, torch::zeros_like(difference))).sum(1);
}

torch::Tensor RowSketches(const torch::Tensor& logits, RandomStream& stream) {
  const torch::Tensor p = logits.detach().softmax(1);
  const torch::Tensor root_signs = p.sqrt() * RandomSigns(p, stream);
  return root_signs - p * root_signs.sum(1, /*keepdim=*/true);
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

}  // namespace bitplan
