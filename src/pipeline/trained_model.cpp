#include "pipeline/trained_model.h"

#include "bitplan/models/architectures.h"
#include "bitplan/models/network.h"
#include "bitplan/pipeline/run_folder.h"
#include "pipeline/checks.h"

namespace bitplan::pipeline {

TrainedModel LoadTrainedModel(const ModelOptions& options, const std::vector<std::filesystem::path>& folders,
                              std::uint64_t seed) {
  TrainedModel model{.module = torch::jit::Module("empty"), .name = options.architecture, .hash = {}};
  if (options.file.empty()) {
    model.module = BuildArchitecture(options.architecture, seed);
    SetDropout(model.module, 0.0);
    model.hash = options.architecture;
  } else {
    const auto file = FindInFolders(options.file, folders, "model file");
    model.module = LoadModule(file);
    model.name = ModelNameOf(file);
    model.hash = FileSha256(file);
  }
  if (options.weights.empty()) return model;
  const auto weights = FindInFolders(options.weights, folders, "weights");
  LayWeights(model.module, weights);
  model.hash += " " + FileSha256(weights);
  return model;
}

}  // namespace bitplan::pipeline
