#include "fuzz/targets.h"

namespace bitplan::fuzz {

const std::vector<FuzzTarget>& FuzzTargets() {
  static const std::vector<FuzzTarget> targets = {
      {"recipe", FuzzRecipe, 1000},
      {"plan", FuzzPlan, 1000},
      {"latency", FuzzLatency, 2000},
      {"widths_csv", FuzzWidthsCsv, 2000},
      {"widths_yaml", FuzzWidthsYaml, 1000},
      {"sensitivity", FuzzSensitivity, 2000},
      {"draws", FuzzDraws, 2000},
      {"npy", FuzzNpy, 2000},
      {"csv", FuzzCsv, 2000},
      {"idx", FuzzIdx, 2000},
      {"cifar10", FuzzCifar10, 500},
      {"pickled_tensor", FuzzPickledTensor, 1000},
      {"picture", FuzzPicture, 1000},
      {"safetensors", FuzzSafetensors, 2000},
      {"packed", FuzzPacked, 1000},
      {"packed_index", FuzzPackedIndex, 2000},
      {"bayes_packed", FuzzBayesPacked, 1000},
      {"onnx_file", FuzzOnnxFile, 2000},
      {"onnx_model", FuzzOnnxModel, 500},
      {"torchscript", FuzzTorchScript, 1000},
      {"state_dict", FuzzStateDict, 2000},
  };
  return targets;
}

}  // namespace bitplan::fuzz
