// `bitplan inspect`: what a model consists of.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace bitplan::pipeline {

struct InspectOptions {
  std::string model;                      // a TorchScript file, also relative to the data folder, or an architecture
  std::filesystem::path data;             // data folder
  std::vector<std::int64_t> input_shape;  // [C, H, W] of one input; empty: the architecture's, or the first that fits
};

struct InspectLayer {
  std::string name, kind;
  std::vector<std::int64_t> shape;  // [out, in / groups, kh, kw] or [out, in]
  std::int64_t weights = 0;
  std::int64_t macs = 0;  // of one input, all uses together
  int uses = 1;
};

struct InspectFloat {
  std::string parameter;
  std::vector<std::int64_t> shape;
  std::string reason;
  std::int64_t bytes = 0;
  bool weight = true;  // false: a mask, an index, a positional encoding, a running statistic
};

struct InspectReport {
  std::string name;
  std::string sha256;
  std::vector<std::int64_t> input_shape;
  std::vector<InspectLayer> layers;  // execution order
  std::vector<InspectFloat> left_in_float;
  std::int64_t weights = 0;        // of all layers
  std::int64_t float_weights = 0;  // of everything left in float that is a weight
  std::int64_t bytes = 0;          // of all tensors of the network
  std::int64_t macs = 0;
  std::int64_t activation_bytes = 0;  // peak of live activations of one input, in float
  int batch_norms = 0;
  std::string note;  // what its answers depend on besides the image, one line (models/answers.h), or empty
};

// Error(kNotFound) for a missing file, Error(kUsage) for an unknown architecture, Error(kData) for a model that cannot
// be used.
[[nodiscard]] InspectReport Inspect(const InspectOptions& options);

}  // namespace bitplan::pipeline
