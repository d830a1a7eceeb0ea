#include "bitplan/pipeline/inspect.h"

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/core/problem.h"
#include "bitplan/models/activation_timeline.h"
#include "bitplan/models/answers.h"
#include "bitplan/models/architectures.h"
#include "bitplan/models/network.h"
#include "bitplan/models/stated_shape.h"
#include "pipeline/checks.h"

namespace bitplan::pipeline {
namespace {

constexpr std::int64_t kInspectFloatBytes = 4;

bool LooksLikeFile(const std::string& model) {
  return model.find('/') != std::string::npos || std::filesystem::path(model).has_extension();
}

bitplan::Network Open(const InspectOptions& options) {
  const std::vector<std::filesystem::path> folders = {"", options.data};
  const bool is_file = LooksLikeFile(options.model) || std::filesystem::is_regular_file(options.model);
  if (!is_file) {
    const auto& architecture = FindArchitecture(options.model);
    const auto& shape = options.input_shape.empty() ? architecture.input_shape : options.input_shape;
    return DescribeNetwork(BuildArchitecture(architecture.name, 1), architecture.name, shape);
  }
  const auto file = FindInFolders(options.model, folders, "model file");
  auto module = LoadModule(file);
  auto shape = options.input_shape.empty() ? StatedInputShape(file) : options.input_shape;
  if (shape.empty()) shape = GuessInputShape(module);
  return DescribeNetwork(module, ModelNameOf(file), shape);
}

// Tried on noise, for want of images; a model that does not take noise says nothing.
std::string NoteOn(const bitplan::Network& network) {
  constexpr std::int64_t kImages = 16;
  auto shape = network.input_shape;
  shape.insert(shape.begin(), kImages);
  auto generator = at::detail::createCPUGenerator(1);
  try {
    return WhyAnswersVary(network, torch::rand(shape, generator));
  } catch (const Error&) {
    return "";
  }
}

std::int64_t PeakOf(const bitplan::Network& network) {
  return PeakActivationBytes(FindActivationTimeline(network), std::vector<int>(network.layers.size(), kFloatBits));
}

}  // namespace

InspectReport Inspect(const InspectOptions& options) {
  const auto network = Open(options);
  InspectReport report{.name = network.name,
                       .sha256 = ModelHash(network.module),
                       .input_shape = network.input_shape,
                       .layers = {},
                       .left_in_float = {},
                       .weights = network.quantizable_weights(),
                       .float_weights = network.weights_in_float(),
                       .bytes = kInspectFloatBytes * network.quantizable_weights() + network.bytes_in_float(),
                       .macs = 0,
                       .activation_bytes = PeakOf(network),
                       .batch_norms = static_cast<int>(network.batch_norms.size()),
                       .note = NoteOn(network)};
  for (const auto& layer : network.layers) {
    report.layers.push_back({layer.name, layer.kind, layer.shape, layer.weights(), layer.macs, layer.uses});
    report.macs += layer.macs;
  }
  for (const auto& item : network.left_in_float) {
    report.left_in_float.push_back({item.parameter, item.shape, item.reason, item.bytes, item.weight});
  }
  return report;
}

}  // namespace bitplan::pipeline
