#include "posterior/batches.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"
#include "models/torch_reason.h"

namespace bitplan {

namespace {

// Which weights the logits depend on.
std::vector<bool> Reaches(const torch::Tensor& logits, const std::vector<torch::Tensor>& weights) {
  std::vector<bool> reaches(weights.size(), false);
  if (!logits.requires_grad()) return reaches;
  try {
    const auto gradients = torch::autograd::grad({logits.sum()}, weights, {}, /*retain_graph=*/false,
                                                 /*create_graph=*/false, /*allow_unused=*/true);
    for (std::size_t l = 0; l < gradients.size(); ++l) reaches[l] = gradients[l].defined();
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kData, "no gradient through the model: " + TorchReason(error));
  }
  return reaches;
}

}  // namespace

GradientScope::GradientScope(const Network& network) {
  for (const torch::Tensor& parameter : network.module.parameters()) {
    flags_.emplace_back(parameter, parameter.requires_grad());
    flags_.back().first.set_requires_grad(false);
  }
  for (const Layer& layer : network.layers) {
    weights_.push_back(GetTensor(network.module, layer.parameter));
    flags_.emplace_back(weights_.back(), weights_.back().requires_grad());  // a buffer is not among the parameters
    weights_.back().set_requires_grad(true);
  }
}

GradientScope::~GradientScope() {
  // Last in, first out: a weight that is a parameter is noted twice.
  for (auto entry = flags_.rbegin(); entry != flags_.rend(); ++entry) entry->first.set_requires_grad(entry->second);
}

std::vector<torch::Tensor> GradientsOf(const torch::Tensor& scalar, const std::vector<torch::Tensor>& of,
                                       bool create_graph) {
  std::vector<torch::Tensor> wanted, found;
  for (const torch::Tensor& tensor : of) {
    if (tensor.requires_grad()) wanted.push_back(tensor);
  }
  if (scalar.requires_grad() && !wanted.empty()) {
    try {
      found = torch::autograd::grad({scalar}, wanted, {}, /*retain_graph=*/create_graph, create_graph,
                                    /*allow_unused=*/true);
    } catch (const Error&) {
      throw;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      throw Error(ErrorKind::kData, "no gradient through the model: " + TorchReason(error));
    }
  }
  std::vector<torch::Tensor> gradients;
  std::size_t next = 0;
  for (const torch::Tensor& tensor : of) {
    const bool has = tensor.requires_grad() && next < found.size();
    torch::Tensor gradient = has ? found[next++] : torch::Tensor();
    gradients.push_back(gradient.defined() ? gradient : torch::zeros_like(tensor.detach()));
  }
  return gradients;
}

void RequireGradients(const Network& network, const Dataset& data, const Normalizer& normalizer) {
  constexpr std::int64_t kBatch = 64, kMost = 4096;
  const GradientScope scope(network);
  std::vector<bool> reached(scope.weights().size(), false), runs = reached;
  std::int64_t tried = 0;
  while (tried < std::min(kMost, data.size())) {
    ThrowIfInterrupted();
    const std::int64_t count = tried == 0 ? 1 : std::min(kBatch, data.size() - tried);
    torch::Tensor logits;
    {
      const Tap tap(
          network, network.module,
          {.on_layer_input = [&](std::size_t l, const torch::Tensor& input) { runs[l] = runs[l] || input.numel() > 0; },
           .on_layer_output = nullptr,
           .on_batch_norm_input = nullptr});
      logits = RunForward(network.module, normalizer.Apply(data.images.narrow(0, tried, count)));
    }
    tried += count;
    const std::vector<bool> now = Reaches(logits, scope.weights());
    for (std::size_t l = 0; l < now.size(); ++l) reached[l] = reached[l] || now[l];
    if (std::find(reached.begin(), reached.end(), false) == reached.end()) return;
  }
  const auto missing = static_cast<std::size_t>(std::find(reached.begin(), reached.end(), false) - reached.begin());
  if (!runs[missing]) {
    throw Error(
        ErrorKind::kData,
        fmt::format("layer {} of {} runs for none of the first {} training images, so nothing says how precisely "
                    "its weights must be kept: give training images that reach it, or save the model without it",
                    network.layers[missing].name, network.name, tried));
  }
  throw Error(ErrorKind::kData,
              fmt::format("no gradient of {} reaches layer {} from any of {} training images: save it "
                          "without torch.no_grad() and detach() in its forward",
                          network.name, network.layers[missing].name, tried));
}

torch::Tensor DrawSamples(const Dataset& data, std::int64_t samples, RandomStream& stream) {
  std::vector<std::int64_t> order = stream.Permutation(data.size());
  order.resize(static_cast<std::size_t>(std::min<std::int64_t>(samples, data.size())));
  return torch::tensor(order, torch::kInt64);
}

torch::Tensor FisherSketch(const torch::jit::Module& module, const Dataset& data, const torch::Tensor& rows,
                           const Normalizer& normalizer, RandomStream& stream) {
  const torch::Tensor outputs = RunForward(module, normalizer.Apply(data.images.index_select(0, rows)));
  return data.Task().Sketch(outputs, data.labels.index_select(0, rows), stream);
}

}  // namespace bitplan
