#include "exporters/onnx_translation.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "bitplan/core/error.h"
#include "bitplan/models/network.h"
#include "exporters/graph_walk.h"
#include "exporters/onnx_call.h"
#include "exporters/onnx_integer.h"
#include "exporters/onnx_operators.h"

namespace bitplan {

namespace onnx_operators {

const OnnxTranslators& All() {
  static const OnnxTranslators all = [] {
    OnnxTranslators made;
    AddLayers(made);
    AddNorms(made);
    AddPools(made);
    AddActivations(made);
    AddQuantizers(made);
    AddElements(made);
    AddRecurrent(made);
    AddReductions(made);
    AddShapes(made);
    return made;
  }();
  return all;
}

}  // namespace onnx_operators

namespace {

constexpr std::int64_t kOpset = 21, kIrVersion = 10;       // the first with 4 bits
constexpr std::int64_t kOpsetOfInt2 = 25, kIrOfInt2 = 13;  // the first with 2 bits
constexpr std::int64_t kOpsetOfQonnx = 1;
constexpr char kInput[] = "input", kOutput[] = "output", kBatch[] = "batch";

// What asks for sizes and types of activations, not for their numbers.
bool AsksForForm(const torch::jit::Node& node) {
  static const std::set<std::string> forms = {"aten::size",
                                              "aten::dim",
                                              "aten::numel",
                                              "aten::len",
                                              "aten::stride",
                                              "prim::dtype",
                                              "prim::device",
                                              "prim::layout",
                                              "prim::is_cuda",
                                              "prim::is_nested",
                                              "prim::is_sparse",
                                              "prim::is_mkldnn",
                                              "prim::is_quantized",
                                              "prim::is_mps",
                                              "aten::is_complex",
                                              "aten::is_floating_point",
                                              "aten::__is__",
                                              "aten::__isnot__",
                                              "aten::is_contiguous",
                                              "aten::is_same_size",
                                              "prim::requires_grad",
                                              "aten::sym_size",
                                              "aten::_shape_as_tensor",
                                              "prim::shape",
                                              "aten::zeros_like",
                                              "aten::ones_like",
                                              "aten::full_like",
                                              "aten::empty_like",
                                              "aten::new_zeros",
                                              "aten::new_ones",
                                              "aten::new_full",
                                              "aten::new_empty",
                                              "aten::new_tensor",
                                              "aten::get_device",
                                              "aten::is_nested",
                                              "aten::format",
                                              "prim::is_xla",
                                              "prim::is_xpu",
                                              "prim::is_vulkan",
                                              "prim::is_ort"};
  return forms.contains(node.kind().toQualString());
}

bool WritesTo(const torch::jit::Node& node, std::size_t argument) {
  if (node.maybeSchema() == nullptr || argument >= node.schema().arguments().size()) return false;
  const auto* const alias = node.schema().arguments()[argument].alias_info();
  return alias != nullptr && alias->isWrite();
}

class OnnxTranslation {
 public:
  OnnxTranslation(OnnxGraph& graph, OnnxNames& names) : graph_(graph), names_(names) {}

  void Translate(const WalkedOperation& operation) {
    const auto& inputs = operation.inputs[0];
    if (std::none_of(inputs.begin(), inputs.end(), [&](const auto& value) { return names_.Depends(value); })) return;
    if (AsksForForm(operation.node)) return;
    const auto outputs = TensorsIn(operation.outputs[0]);
    const OnnxCall call(graph_, names_, operation);
    bool writes = false;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!inputs[i].isTensor() || !WritesTo(operation.node, i)) continue;
      writes = true;
      if (!names_.Knows(inputs[i].toTensor()) && OperatorName(operation.node) != "copy") {
        call.Refuse("writes activations into a constant");
      }
      names_.Written(inputs[i].toTensor());
    }
    // What hands on the tensors that it is given, as an element of a list, needs no operation.
    const bool hands_on = std::all_of(outputs.begin(), outputs.end(), [&](const auto& t) { return names_.Knows(t); });
    if (!writes && hands_on && !(outputs.empty() && HasNumbers(operation))) return;
    if (outputs.empty()) call.Refuse("reads the numbers of activations, which differ from input to input");
    graph_.SetScope(operation.scope);
    const auto results = TranslatorOf(operation)(call);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (i < results.size()) {
        names_.Name(outputs[i], results[i]);
      } else {
        names_.Forget(outputs[i], fmt::format("onnx: output {} of {} has no translation", i + 1, operation.Place()));
      }
    }
  }

 private:
  static bool HasNumbers(const WalkedOperation& operation) {
    const auto& outputs = operation.outputs[0];
    return std::any_of(outputs.begin(), outputs.end(), [](const c10::IValue& value) {
      return value.isScalar() || value.isBool() || value.isIntList() || value.isDoubleList() || value.isBoolList();
    });
  }

  static OnnxTranslator TranslatorOf(const WalkedOperation& operation) {
    const auto& all = onnx_operators::All();
    const bool aten = operation.node.kind().is_aten();
    auto found = aten ? all.find(operation.node.kind().toUnqualString()) : all.end();
    if (aten && found == all.end()) found = all.find(OperatorName(operation.node));
    if (found != all.end()) return found->second;
    throw Error(ErrorKind::kData,
                fmt::format("onnx: there is no translation of {}; write the model with operators that "
                            "docs/formats.md lists, or export --to packed or torchscript",
                            operation.Place()));
  }

  OnnxGraph& graph_;
  OnnxNames& names_;
};

// Folders of earlier versions do not say what the network takes; it may be what the known data sets hold.
std::vector<std::int64_t> OnnxInputShape(const NetworkInput& input, const torch::jit::Module& module) {
  if (!input.shape.empty()) return input.shape;
  try {
    return GuessInputShape(module);
  } catch (const Error&) {
    throw Error(ErrorKind::kData,
                "onnx: this plan was applied by an earlier version, which did not keep the shape of "
                "the input; run the recipe again with another --out");
  }
}

onnx_file::Port PortOf(const std::string& name, const torch::Tensor& first, const torch::Tensor& second) {
  onnx_file::Port port{.name = name, .type = OnnxType(first.scalar_type()), .dims = {}};
  for (const Extent& extent : ExtentsOf(first, second)) {
    if (extent.fixed()) {
      port.dims.emplace_back(extent.first);
    } else {
      port.dims.emplace_back(extent.times() == 1 ? std::string(kBatch)
                                                 : fmt::format("{} x {}", extent.times(), kBatch));
    }
  }
  return port;
}

}  // namespace

onnx_file::Model TranslateToOnnx(const QuantizedNetwork& network, const torch::jit::Module& module,
                                 const std::vector<std::int64_t>& input_shape, torch::ScalarType input_type,
                                 OnnxWeights weights) {
  const torch::NoGradGuard no_grad;
  OnnxGraph graph(kInput, weights);
  OnnxNames names(graph, network, module);
  OnnxTranslation translation(graph, names);
  GraphWalk walk(module, [&](const WalkedOperation& operation) { translation.Translate(operation); });
  std::array<torch::Tensor, 2> batches;
  for (std::size_t i = 0; i < 2; ++i) {
    auto shape = input_shape;
    shape.insert(shape.begin(), kBatches[i]);
    batches[i] = torch::zeros(shape, input_type);
  }
  names.Name(batches[0], kInput);
  onnx_file::Model model;
  model.name = "network";
  model.inputs.push_back(PortOf(kInput, batches[0], batches[1]));
  const BothValues answers = walk.Run(batches);
  if (!answers[0].isTensor()) throw Error(ErrorKind::kData, "onnx: forward of the model returns no tensor");
  graph.SetScope("");
  const std::string output = graph.AddAs("Identity", names.Of(answers[0].toTensor(), answers[1].toTensor()), kOutput);
  model.outputs.push_back(PortOf(output, answers[0].toTensor(), answers[1].toTensor()));
  std::move(graph).MoveInto(model, {output});
  MakeIntegerLayers(model);
  const bool int2 = std::any_of(model.initializers.begin(), model.initializers.end(),
                                [](const auto& initializer) { return initializer.type == onnx_file::Type::kInt2; });
  model.opset = int2 ? kOpsetOfInt2 : kOpset;
  model.ir_version = int2 ? kIrOfInt2 : kIrVersion;
  if (weights == OnnxWeights::kQuantNodes) model.other_opsets.emplace_back(kQonnxDomain, kOpsetOfQonnx);
  return model;
}

onnx_file::Model TranslatedModel(const ExportInputs& inputs, OnnxWeights weights) {
  const torch::jit::Module module = LoadModule(inputs.torchscript);
  const auto shape = OnnxInputShape(inputs.input, module);
  onnx_file::Model model = TranslateToOnnx(inputs.network, module, shape, inputs.input.type, weights);
  model.name = inputs.plan.model.name;
  model.metadata.emplace_back("plan", inputs.network.plan);
  return model;
}

}  // namespace bitplan
