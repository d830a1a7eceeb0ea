// Normalizations, always with the statistics that a network in eval mode uses.
#include "exporters/onnx_operators.h"

namespace bitplan::onnx_operators {
namespace {

std::string OptionalVector(const OnnxCall& call, const char* argument, std::int64_t size, double otherwise) {
  return call.Has(argument) ? call.Name(argument)
                            : call.graph().Constant(torch::full({size}, otherwise, torch::kFloat32));
}

onnx_file::Attribute Epsilon(const OnnxCall& call) { return {"epsilon", static_cast<float>(call.Real("eps"))}; }

Names BatchNorm(const OnnxCall& call) {
  const char* const training = call.Has("training") ? "training" : "train";
  if (call.Flag(training) || !call.Has("running_mean")) call.Refuse("takes its statistics from the batch");
  const std::int64_t channels = call.Tensor("running_mean").numel();
  return {call.graph().Add(
      "BatchNormalization",
      {call.Name("input"), OptionalVector(call, "weight", channels, 1.0), OptionalVector(call, "bias", channels, 0.0),
       call.Name("running_mean"), call.Name("running_var")},
      {Epsilon(call)})};
}

Names LayerNorm(const OnnxCall& call) {
  const auto shape = call.Ints("normalized_shape");
  Names inputs = {call.Name("input"),
                  call.Has("weight") ? call.Name("weight") : call.graph().Constant(torch::ones(shape))};
  if (call.Has("bias")) inputs.push_back(call.Name("bias"));
  return {call.graph().Add("LayerNormalization", inputs,
                           {{"axis", -static_cast<std::int64_t>(shape.size())}, Epsilon(call)})};
}

// weight and bias [channels], multiplied and added along dimension 1.
std::string Affine(const OnnxCall& call, std::string value, std::int64_t dims) {
  std::vector<std::int64_t> along(static_cast<std::size_t>(dims - 1), 1);
  along[0] = -1;
  const auto in_place = [&](const char* argument) {
    return call.graph().Add("Reshape", {call.Name(argument), call.graph().Ints(along)});
  };
  if (call.Has("weight")) value = call.graph().Add("Mul", {value, in_place("weight")});
  if (call.Has("bias")) value = call.graph().Add("Add", {value, in_place("bias")});
  return value;
}

// Each group is one channel of an instance norm.
Names GroupNorm(const OnnxCall& call) {
  OnnxGraph& graph = call.graph();
  const std::int64_t groups = call.Int("num_groups");
  const Extents sizes = call.SizesOf("input");
  const std::int64_t size = call.Tensor("input").numel() / sizes[0].first / groups;
  const std::string grouped = graph.Reshape(call.Name("input"), {sizes[0], {groups, groups}, {size, size}});
  const std::string normed =
      graph.Add("InstanceNormalization",
                {grouped, graph.Constant(torch::ones(groups)), graph.Constant(torch::zeros(groups))}, {Epsilon(call)});
  return {Affine(call, graph.Reshape(normed, sizes), call.Dims("input"))};
}

Names InstanceNorm(const OnnxCall& call) {
  if (!call.Flag("use_input_stats", true)) return BatchNorm(call);
  const std::int64_t channels = call.Tensor("input").size(1);
  return {call.graph().Add(
      "InstanceNormalization",
      {call.Name("input"), OptionalVector(call, "weight", channels, 1.0), OptionalVector(call, "bias", channels, 0.0)},
      {Epsilon(call)})};
}

}  // namespace

void AddNorms(OnnxTranslators& all) {
  all["batch_norm"] = BatchNorm;
  all["native_batch_norm"] = BatchNorm;
  all["layer_norm"] = LayerNorm;
  all["native_layer_norm"] = LayerNorm;
  all["group_norm"] = GroupNorm;
  all["instance_norm"] = InstanceNorm;
}

}  // namespace bitplan::onnx_operators
