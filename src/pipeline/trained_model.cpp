#include "pipeline/trained_model.h"

#include "bitplan/core/error.h"
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
  if (std::filesystem::path(options.file).extension() == ".onnx") {
    throw Error(ErrorKind::kUsage,
                "model.weights cannot lie over the ONNX file " + options.file +
                    ": it may hold weights transposed or folded; export the network again with these weights, or give "
                    "it as TorchScript");
  }
  const auto weights = FindInFolders(options.weights, folders, "weights");
  LayWeights(model.module, weights);
  model.hash += " " + FileSha256(weights);
  return model;
}

}  // namespace bitplan::pipeline
