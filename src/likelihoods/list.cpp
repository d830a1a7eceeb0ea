#include "likelihoods/list.h"

#include "bitplan/core/suggest.h"

namespace bitplan {

const std::vector<LikelihoodKind>& Likelihoods() {
  static const std::vector<LikelihoodKind> list = {
      {"classification", "one class for every image: outputs [N, classes], labels [N]", MakeClassification},
      {"segmentation", "one class for every position: outputs [N, classes, ...], labels [N, ...], -100 counts nothing",
       MakeSegmentation},
      {"tokens", "one class for every position: outputs [N, ..., classes], labels [N, ...], -100 counts nothing",
       MakeTokens},
      {"regression", "numbers with Gaussian noise: outputs and targets [N, ...], images that are restored too",
       MakeRegression},
      {"multi-label", "labels that are there or not: outputs and labels [N, L], or [N] with one output",
       MakeMultiLabel},
  };
  return list;
}

const LikelihoodKind& FindLikelihood(const std::string& name) { return FindByName(Likelihoods(), "task", name); }

const Likelihood& Classification() {
  static const std::unique_ptr<Likelihood> classification = MakeClassification();
  return *classification;
}

torch::Tensor Likelihood::Loss(const torch::Tensor& outputs, const torch::Tensor& labels, bool mean) const {
  const torch::Tensor losses = Losses(outputs, labels);
  return mean ? losses.mean() : losses.sum();
}

}  // namespace bitplan
