// The list of exporters, in the order in which they are shown.
#include <fmt/format.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "bitplan/exporters/exporter.h"

namespace bitplan {

void ExportPacked(const ExportInputs& inputs, const ExportFiles& files);
void ExportTorchScript(const ExportInputs& inputs, const ExportFiles& files);
void ExportJson(const ExportInputs& inputs, const ExportFiles& files);
void ExportOnnx(const ExportInputs& inputs, const ExportFiles& files);
void ExportQonnx(const ExportInputs& inputs, const ExportFiles& files);
void ExportCompressedTensors(const ExportInputs& inputs, const ExportFiles& files);
void ExportGguf(const ExportInputs& inputs, const ExportFiles& files);
void ExportC(const ExportInputs& inputs, const ExportFiles& files);
void ExportModelOpt(const ExportInputs& inputs, const ExportFiles& files);
void ExportAimet(const ExportInputs& inputs, const ExportFiles& files);
void ExportAutoRound(const ExportInputs& inputs, const ExportFiles& files);
void ExportHls4ml(const ExportInputs& inputs, const ExportFiles& files);

HeldLayer CHolds(const Layer& layer);
HeldLayer JsonHolds(const Layer& layer);
HeldLayer PackedHolds(const Layer& layer);
HeldLayer OnnxHolds(const Layer& layer);
HeldLayer QonnxHolds(const Layer& layer);
HeldLayer CompressedTensorsHolds(const Layer& layer);
HeldLayer GgufHolds(const Layer& layer);
HeldLayer ModelOptHolds(const Layer& layer);
HeldLayer AimetHolds(const Layer& layer);
HeldLayer AutoRoundHolds(const Layer& layer);
HeldLayer Hls4mlHolds(const Layer& layer);

const std::vector<Exporter>& Exporters() {
  static const std::vector<Exporter> exporters = {
      {"packed", "codes of 1 to 8 bits without a bit between them, scales, the rest in float: a safetensors file",
       "quantized.safetensors", ExportPacked, nullptr, PackedHolds},
      {"torchscript", "the module with rounded weights in float32, as Python and C++ load it", "quantized.pt",
       ExportTorchScript},
      {"json", "codes and scales as numbers in text", "quantized.json", ExportJson, nullptr, JsonHolds},
      {"onnx", "the network for ONNX Runtime and others: weights as integers of 2 to 8 bits, the rest in float",
       "quantized.onnx", ExportOnnx, nullptr, OnnxHolds},
      {"qonnx", "the network with Quant nodes of 2 to 8 bits and BipolarQuant, for FINN and hls4ml",
       "quantized.qonnx.onnx", ExportQonnx, nullptr, QonnxHolds},
      {"compressed-tensors", "linear layers as int32 words of packed codes, for Hugging Face and vLLM; with a config",
       "quantized.compressed-tensors.safetensors", ExportCompressedTensors, ".json", CompressedTensorsHolds},
      {"gguf", "linear layers in blocks of ggml, the rest in float32: for ggml and llama.cpp", "quantized.gguf",
       ExportGguf, nullptr, GgufHolds},
      {"c", "packed codes, scales and a function that unpacks them, in C99 for firmware; with a header", "quantized.c",
       ExportC, ".h", CHolds},
      {"modelopt", "the widths as a quant_cfg of NVIDIA Model Optimizer", "quantized.modelopt.json", ExportModelOpt,
       nullptr, ModelOptHolds},
      {"aimet", "widths, scales and offsets as param_encodings of AIMET", "quantized.aimet.json", ExportAimet, nullptr,
       AimetHolds},
      {"autoround", "the widths as a layer_config of AutoRound", "quantized.autoround.json", ExportAutoRound, nullptr,
       AutoRoundHolds},
      {"hls4ml", "the widths as an HLSConfig of hls4ml", "quantized.hls4ml.yml", ExportHls4ml, nullptr, Hls4mlHolds},
  };
  return exporters;
}

const Exporter& FindExporter(const std::string& name) {
  const auto& all = Exporters();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Exporter& one) { return name == one.name; });
  if (found != all.end()) return *found;
  std::vector<std::string> names;
  for (const Exporter& exporter : all) names.emplace_back(exporter.name);
  throw Error(ErrorKind::kUsage, UnknownNameMessage("format", name, names));
}

HeldLayer HeldBy(const Exporter& exporter, const Layer& layer) {
  return exporter.holds == nullptr ? HeldLayer{} : exporter.holds(layer);
}

std::filesystem::path SecondFile(const Exporter& exporter, const std::filesystem::path& first) {
  if (exporter.second == nullptr) return {};
  std::filesystem::path second = first;
  return second.replace_extension(exporter.second);
}

std::string ExportersHelp() {
  std::string text =
      "Formats of 'bitplan export RECIPE --to FORMAT', with the file that each writes into the output "
      "folder:\n\n";
  for (const Exporter& exporter : Exporters()) {
    text += fmt::format("  {:<18} {:<40} {}\n", exporter.name, exporter.file, exporter.description);
  }
  return text;
}

}  // namespace bitplan
