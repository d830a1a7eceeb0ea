#include "bitplan/pipeline/stages.h"

#include <torch/types.h>

#include <nlohmann/json.hpp>

#include "bitplan/core/error.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {

ModelReport Train(const RecipeOptions& options, ProgressSink& progress) {
  StageChain chain(options, progress);
  if (const auto& model = chain.recipe().model; model.is_trained()) {
    const std::string recipe = "nothing to train: " + options.recipe.string();
    throw Error(ErrorKind::kUsage,
                model.file.empty()
                    ? recipe + " takes the weights of " + model.architecture + " from " + model.weights +
                          "; leave model.weights out to train it"
                    : recipe + " loads its model from " + model.file + "; name a model.architecture to train one");
  }
  const auto record = chain.ModelRecord();
  return {.folder = chain.folder().path(),
          .model_file = chain.folder().File("model.pt"),
          .model_name = chain.recipe().model.architecture,
          .model_sha256 = record.content,
          .epoch_loss = nlohmann::json::parse(record.facts).at("epoch_loss"),
          .stages = chain.statuses()};
}

PosteriorReport EstimatePosterior(const RecipeOptions& options, ProgressSink& progress) {
  StageChain chain(options, progress);
  const auto& posterior = chain.LoadedPosterior();
  PosteriorReport report{.folder = chain.folder().path(),
                         .posterior_file = chain.PosteriorFile(),
                         .estimator = posterior.estimator,
                         .data_size = posterior.data_size,
                         .layers = {},
                         .stages = chain.statuses()};
  for (const auto& layer : posterior.layers) {
    report.layers.push_back({.name = layer.layer,
                             .weights = layer.sigma.numel(),
                             .prior_sigma = layer.prior_sigma,
                             .median_sigma = layer.sigma.median().item<double>()});
  }
  return report;
}

}  // namespace bitplan::pipeline
