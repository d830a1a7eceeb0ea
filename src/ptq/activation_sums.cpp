#include "ptq/activation_sums.h"

#include <fmt/format.h>
#include <torch/csrc/jit/ir/constants.h>

#include <array>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/models/tap.h"
#include "models/inlined_graph.h"
#include "quantizers/inserted_quantizers.h"

namespace bitplan {
namespace {

constexpr int kSumBits = 8;  // integer kernels of sums take no fewer and no more
constexpr char kFakeQuantize[] = "aten::fake_quantize_per_tensor_affine";

using TermSamples = std::array<ActivationSample, 2>;

bool IsTensor(const torch::jit::Value& value) { return value.type()->isSubtypeOf(*c10::TensorType::get()); }

bool IsSum(const torch::jit::Node& node) {
  const std::string_view kind = node.kind().toQualString();
  if ((kind != "aten::add" && kind != "aten::add_") || node.inputs().size() != 3) return false;
  const auto factor = torch::jit::toIValue(node.input(2));
  return IsTensor(*node.input(0)) && IsTensor(*node.input(1)) && factor && factor->isScalar() &&
         factor->toScalar().toDouble() == 1.0;
}

// Whether the values of the result are among those of the first operand, and zeros.
bool KeepsLevels(const torch::jit::Node& node) {
  static const std::set<std::string_view> moving = {"aten::slice", "aten::select", "aten::dropout"};
  static const std::set<std::string_view> padding = {"aten::pad", "aten::constant_pad_nd"};
  const std::string_view kind = node.kind().toQualString();
  if (moving.contains(kind)) return true;
  if (!padding.contains(kind)) return false;
  const auto fill = torch::jit::toIValue(node.inputs().back());
  const auto mode = kind == "aten::pad" ? torch::jit::toIValue(node.input(2)) : c10::nullopt;
  return (!mode || (mode->isString() && mode->toStringRef() == "constant")) && fill &&
         (fill->isNone() || (fill->isScalar() && fill->toScalar().toDouble() == 0.0));
}

// The quantizer whose levels a term has already.
std::optional<AffineQuantizer> QuantizerBehind(const torch::jit::Value& term) {
  const torch::jit::Node* node = term.node();
  while (KeepsLevels(*node)) node = node->input(0)->node();
  if (std::string_view(node->kind().toQualString()) != kFakeQuantize) return std::nullopt;
  const auto scale = torch::jit::toIValue(node->input(1)), zero_point = torch::jit::toIValue(node->input(2)),
             highest = torch::jit::toIValue(node->input(4));
  if (!scale || !zero_point || !highest) return std::nullopt;
  AffineQuantizer quantizer{
      .bits = 1, .scale = static_cast<float>(scale->toDouble()), .zero_point = zero_point->toInt()};
  while (quantizer.highest() < highest->toInt()) ++quantizer.bits;
  return quantizer;
}

// The terms of every sum that runs, in the order of the first pass.
std::vector<TermSamples> SampledTerms(const Network& network, std::size_t sums,
                                      const std::function<std::size_t()>& run) {
  std::vector<TermSamples> samples(sums);
  std::size_t ran = 0;
  TapHandlers handlers;
  handlers.on_sum = [&](const torch::Tensor& left, const torch::Tensor& right) {
    const std::size_t sum = ran++ % sums;
    samples[sum][0].Add(left);
    samples[sum][1].Add(right);
  };
  std::size_t passes = 0;
  {
    const Tap tap(network, network.module, std::move(handlers));
    passes = run();
  }
  if (ran != passes * sums) {
    throw Error(
        ErrorKind::kData,
        fmt::format("quantizer.activation_sums: {} sums stand in the code, {} ran in {} passes; set it to float "
                    "for this network",
                    sums, ran, passes));
  }
  return samples;
}

}  // namespace

void RoundSums(const Network& network, torch::jit::Graph& graph, const std::string& range,
               const std::function<std::size_t()>& run) {
  std::vector<torch::jit::Node*> sums;
  for (torch::jit::Node* node : graph.nodes()) {
    if (IsSum(*node)) sums.push_back(node);
  }
  std::size_t everywhere = 0;
  ForEachNode(*graph.block(), [&](const torch::jit::Node& node) { everywhere += IsSum(node) ? 1 : 0; });
  if (everywhere != sums.size()) {
    throw Error(ErrorKind::kData,
                "quantizer.activation_sums: a sum stands in a branch or a loop; set it to float for this network");
  }
  if (sums.empty()) return;
  const auto samples = SampledTerms(network, sums.size(), run);
  for (std::size_t s = 0; s < sums.size(); ++s) {
    for (const std::size_t term : {0, 1}) {
      torch::jit::Node* const sum = sums[s];
      torch::jit::Value* const value = sum->input(term);
      if (std::string_view(value->node()->kind().toQualString()) == kFakeQuantize) continue;
      // What reads the tensor after the sum was written into it would miss that.
      const bool in_place = term == 0 && std::string_view(sum->kind().toQualString()) == "aten::add_";
      if (in_place && value->uses().size() > 1) continue;
      const auto known = QuantizerBehind(*value);
      torch::jit::Value* const rounded =
          InsertQuantizer(sum, value, known ? *known : FitActivation(samples[s][term], kSumBits, range));
      rounded->copyMetadata(value);
      sum->replaceInput(term, rounded);
    }
  }
}

}  // namespace bitplan
