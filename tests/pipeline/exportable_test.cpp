// quantizer.exportable, from the recipe to the file: plans keep to what a format holds, and the files are read back by
// readers that share nothing with the exporters.
#include <cmath>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/pipeline/diff.h"
#include "bitplan/pipeline/export.h"
#include "bitplan/pipeline/run.h"
#include "exporters/codes.h"
#include "exporters/compressed_tensors_reader.h"
#include "exporters/gguf_reader.h"
#include "exporters/onnx_weights_reader.h"
#include "pipeline/shared_network.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

using testing::Folder;
using testing::SharedOptions;

// A convolution, rows of 512 and rows of 32 numbers. Every channel has a long side, half of them above zero: without a
// restriction their scales are negative.
void PrepareRows(const Folder& folder) {
  testing::PrepareShared(folder, 120);  // its recipe; model and data are others
  torch::manual_seed(12);
  torch::jit::Module module("Net");
  const auto add = [&](const char* name, const torch::Tensor& weight, bool bias) {
    torch::jit::Module child(name);
    std::vector<std::int64_t> along(static_cast<std::size_t>(weight.dim()), 1);
    along[0] = weight.size(0);
    const torch::Tensor long_side = weight + 0.4 * weight.abs() * torch::randn(along).sign();
    child.register_parameter("weight", long_side, false);
    if (bias) child.register_parameter("bias", torch::randn({weight.size(0)}) * 0.1, false);
    module.register_module(name, child);
  };
  add("conv", torch::randn({8, 1, 3, 3}) * 0.4, false);
  add("fc1", torch::randn({32, 512}) * 0.06, true);
  add("fc2", torch::randn({5, 32}) * 0.3, true);
  module.define(R"(
def forward(self, x):
  h = torch.relu(torch.conv2d(x, self.conv.weight, None, 1, 1))
  h = torch.relu(torch.linear(torch.flatten(h, 1), self.fc1.weight, self.fc1.bias))
  return torch.linear(h, self.fc2.weight, self.fc2.bias)
)");
  module.eval();
  module.save((folder.path / "model.pt").string());
  for (const auto& [split, count] : {std::pair<std::string, std::int64_t>{"train", 120}, {"test", 100}}) {
    const torch::Tensor images = torch::randn({count, 1, 8, 8});
    testing::WriteArray(folder.path / (split + "-images.npy"), images);
    testing::WriteArray(folder.path / (split + "-labels.npy"), module.forward({images}).toTensor().argmax(1));
  }
}

pipeline::RunReport RunFor(const Folder& folder, const std::string& format, std::vector<std::string> more = {}) {
  more.push_back("quantizer.exportable=" + format);
  if (std::none_of(more.begin(), more.end(), [](const auto& one) { return one.starts_with("allocate.budget"); })) {
    more.emplace_back("allocate.budget.average_bits=4.5");
  }
  return pipeline::Run(SharedOptions(folder, more), SilentSink());
}

std::string ErrorFor(const Folder& folder, const std::string& format, const std::vector<std::string>& more = {}) {
  try {
    (void)RunFor(folder, format, more);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A weight as a reader of the file has it, and the bits that it takes there.
struct ReadWeight {
  torch::Tensor values;
  int bits = 0;
};

// One of the nodes has these values.
ReadWeight FromOnnx(const std::string& file, const torch::Tensor& wanted) {
  const testing::ReadModel model = testing::ReadOnnx(file);
  for (const testing::ReadOperation& node : model.operations) {
    const bool quant = node.type == "Quant", bipolar = node.type == "BipolarQuant";
    if (node.type != "DequantizeLinear" && !quant && !bipolar) continue;
    ReadWeight weight;
    if (quant || bipolar) {
      weight.values = testing::QuantOf(model, node);
      weight.bits = bipolar ? 1 : testing::FloatsOf(model, node.inputs.at(3)).item<int>();
      const torch::Tensor scales = testing::FloatsOf(model, node.inputs.at(1));
      CHECK(scales.gt(0).all().item<bool>());
    } else {
      weight.values = testing::Dequantized(model, node);
      weight.bits = testing::BitsOfOnnx(model.initializers.at(node.inputs.at(0)).type);
    }
    if (testing::SameBits(weight.values, wanted)) return weight;
  }
  return {};
}

ReadWeight FromCompressedTensors(const std::string& file, const std::string& config, const std::string& module) {
  const auto parsed = safetensors::Parse(file);
  const auto groups = nlohmann::json::parse(config).at("quantization_config").at("config_groups");
  for (const auto& [name, group] : groups.items()) {
    for (const auto& target : group.at("targets")) {
      if (target != module) continue;
      const int bits = group.at("weights").at("num_bits");
      return {testing::Decompressed(parsed, module, bits), bits};
    }
  }
  return {};
}

ReadWeight FromGguf(const std::string& file, const std::string& parameter) {
  const std::map<int, int> bits_of_type = {{41, 1}, {10, 2}, {11, 3}, {2, 4}, {6, 5}, {14, 6}, {8, 8}};
  const testing::Gguf gguf = testing::ReadGguf(file);
  CHECK(gguf.tensors.count(parameter + ".scale") == 0);  // scales stand in the blocks
  const testing::GgufTensor& tensor = gguf.tensors.at(parameter);
  const auto bits = bits_of_type.find(tensor.type);
  return {testing::ValuesIn(tensor), bits == bits_of_type.end() ? 32 : bits->second};
}

// The encodings give the weights of quantized.pt back.
ReadWeight FromAimet(const std::string& file, const std::string& parameter, const torch::Tensor& wanted) {
  const auto json = nlohmann::json::parse(file);
  for (const auto& encoding : json.at("param_encodings")) {
    if (encoding.at("name") != parameter) continue;
    const auto scales = encoding.at("scale").get<std::vector<float>>();
    const auto offsets = encoding.at("offset").get<std::vector<int>>();
    const int bits = encoding.at("bw");
    torch::Tensor values = wanted.clone().contiguous();
    auto* const value = values.data_ptr<float>();
    const std::int64_t row = values.numel() / values.size(0);
    for (std::int64_t i = 0; i < values.numel(); ++i) {
      const auto c = scales.size() == 1 ? 0 : static_cast<std::size_t>(i / row);
      const auto offset = static_cast<float>(offsets[c]);
      const float integer =
          std::min(std::max(std::nearbyint(value[i] / scales[c]) - offset, 0.0F), std::ldexp(1.0F, bits) - 1.0F);
      value[i] = (integer + offset) * scales[c];
    }
    CHECK(torch::equal(values, wanted));  // a zero of a negative scale has another sign
    return {wanted, bits};
  }
  return {};
}

ReadWeight FromJson(const std::string& file, const std::string& parameter) {
  const auto json = nlohmann::json::parse(file);
  for (const auto& layer : json.at("layers")) {
    if (layer.at("parameter") != parameter) continue;
    const auto& block = layer.at("blocks").at(0);
    const auto shape = layer.at("shape").get<std::vector<std::int64_t>>();
    const auto codes = block.at("codes").get<std::vector<float>>();
    const auto scales = block.at("scales").get<std::vector<float>>();
    torch::Tensor values = torch::empty(shape);
    const std::size_t row = codes.size() / static_cast<std::size_t>(shape[0]);
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const float scale = scales.size() == 1 ? scales[0] : scales[i / row];
      values.data_ptr<float>()[i] = scale * (codes[i] + block.at("offset").get<float>());
    }
    return {values, block.at("bits").get<int>()};
  }
  return {};
}

ReadWeight FromC(const std::filesystem::path& folder, const std::string& parameter,
                 const std::vector<std::int64_t>& shape, int bits) {
  std::ofstream(folder / "main.c") << R"(#include "quantized.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
  int w;
  for (w = 0; w < quantized_count; ++w) {
    const uint32_t size = quantized_size(&quantized_weights[w]);
    float *values = malloc(size * sizeof(float));
    if (argc < 2 || strcmp(quantized_weights[w].name, argv[1]) != 0) continue;
    quantized_unpack(&quantized_weights[w], values);
    fwrite(values, sizeof(float), size, stdout);
  }
  return 0;
}
)";
  const std::string command = "cd '" + folder.string() + "' && cc -std=c99 quantized.c main.c -o unpack && ./unpack " +
                              parameter + " > values.bin";
  REQUIRE(std::system(command.c_str()) == 0);
  const std::string bytes = ReadFile(folder / "values.bin", "values");
  torch::Tensor values = torch::empty(shape);
  REQUIRE(bytes.size() == values.nbytes());
  std::memcpy(values.data_ptr(), bytes.data(), bytes.size());
  return {values, bits};
}

ReadWeight ReadBack(const std::string& format, const pipeline::ExportReport& exported, const PlanLayer& layer,
                    const torch::Tensor& wanted) {
  const std::string parameter = layer.name + ".weight";
  if (format == "torchscript") return {GetTensor(LoadModule(exported.file), parameter), layer.bits};
  if (format == "packed") {
    const auto network = LoadQuantizedNetwork(exported.file);
    for (const QuantizedLayer& one : network.layers) {
      if (one.parameter == parameter) return {one.Values(), one.blocks.front().bits};
    }
    return {};
  }
  const std::string file = ReadFile(exported.file, "export");
  if (format == "onnx" || format == "qonnx") return FromOnnx(file, wanted);
  if (format == "compressed-tensors") {
    return FromCompressedTensors(file, ReadFile(exported.second_file, "config"), layer.name);
  }
  if (format == "gguf") return FromGguf(file, parameter);
  if (format == "aimet") return FromAimet(file, parameter, wanted);
  if (format == "json") return FromJson(file, parameter);
  REQUIRE(format == "c");
  return FromC(exported.file.parent_path(), parameter, layer.shape, layer.bits);
}

// Of tools that round by themselves: the width that the file states.
int StatedWidth(const std::string& format, const std::string& file, const std::string& layer) {
  if (format == "hls4ml") {
    const auto at = file.find("    " + layer + ":\n      Precision:\n        weight: fixed<");
    REQUIRE(at != std::string::npos);
    return std::atoi(file.c_str() + file.find('<', at) + 1);
  }
  const auto json = nlohmann::json::parse(file);
  if (format == "autoround") return json.at(layer).at("bits");
  for (const auto& entry : json.at("quant_cfg")) {
    if (entry.at("quantizer_name") == layer + ".weight_quantizer") return entry.at("cfg").at("num_bits");
  }
  return 0;
}

bool IsOneOf(const std::vector<int>& widths, int bits) {
  return std::find(widths.begin(), widths.end(), bits) != widths.end();
}

torch::Tensor ScalesOf(const Folder& folder) {
  std::vector<torch::Tensor> all;
  for (const QuantizedLayer& layer : LoadQuantizedNetwork(folder.path / "out/codes.safetensors").layers) {
    all.push_back(layer.blocks.front().scales);
  }
  return torch::cat(all);
}

}  // namespace

TEST_CASE(
    "a plan for a format is exported to it without a refusal, every weight bit for bit, in as many bits as planned") {
  const Folder folder;
  PrepareRows(folder);
  for (const Exporter& exporter : Exporters()) {
    const std::string format = exporter.name;
    INFO(format);
    const auto report = RunFor(folder, format);
    REQUIRE(report.plan.exportable.has_value());
    const auto exported = pipeline::Export({SharedOptions(folder, {}), format, {}, {}}, SilentSink());
    const auto module = LoadModule(folder.path / "out/quantized.pt");
    int planned = 0;
    for (const PlanLayer& layer : report.plan.layers) {
      if (layer.bits > 8) continue;
      ++planned;
      INFO(layer.name << ", " << layer.bits << " bits, grid " << layer.grid);
      CHECK(IsOneOf(report.plan.exportable->bits, layer.bits));
      if (format == "modelopt" || format == "autoround" || format == "hls4ml") {
        CHECK(StatedWidth(format, ReadFile(exported.file, "export"), layer.name) == layer.bits);
        continue;
      }
      const torch::Tensor wanted = GetTensor(module, layer.name + ".weight");
      const ReadWeight read = ReadBack(format, exported, layer, wanted);
      REQUIRE(read.values.defined());
      CHECK(testing::SameBits(read.values, wanted));
      CHECK(read.bits == layer.bits);
    }
    // The others have a reason, which names the format.
    const bool linear_only = format == "gguf" || format == "compressed-tensors";
    CHECK(planned == (format == "autoround" ? 1 : linear_only ? 2 : 3));
    for (const FloatWeights& tensor : report.plan.left_in_float->tensors) {
      if (tensor.name == "conv") CHECK_THAT(tensor.reason, ContainsSubstring(format));
    }
    // What is read again says the same.
    const std::string text = ReadFile(folder.path / "out/plan.yaml", "plan");
    CHECK(DumpPlan(ParsePlan(text, "plan.yaml")) == text);
    CHECK(ParsePlan(text, "plan.yaml").quantizer.exportable == format);
  }
}

TEST_CASE("without the option scales may be negative as before, for a format that wants none all are positive") {
  const Folder folder;
  PrepareRows(folder);
  const std::vector<std::string> options = {"allocate.bits=[2, 4]", "allocate.budget.average_bits=2.5"};
  const auto free = RunFor(folder, "none", options);
  CHECK(!free.plan.exportable.has_value());
  CHECK(ReadFile(folder.path / "out/plan.yaml", "plan").find("exportable") == std::string::npos);
  REQUIRE(ScalesOf(folder).lt(0).any().item<bool>());
  CHECK_NOTHROW(pipeline::Export({SharedOptions(folder, {}), "onnx", {}, {}}, SilentSink()));
  for (const std::string range : {"max", "output"}) {
    for (const std::string rounding : {"nearest", "compensated"}) {
      for (const std::string granularity : {"channel", "tensor"}) {
        auto with = options;
        with.insert(with.end(), {"quantizer.range=" + range, "quantizer.rounding=" + rounding,
                                 "quantizer.granularity=" + granularity, "quantizer.output_correction=fit"});
        INFO(range << " " << rounding << " " << granularity);
        (void)RunFor(folder, "onnx", with);
        CHECK(ScalesOf(folder).gt(0).all().item<bool>());
      }
    }
  }
}

TEST_CASE("scales for gguf are numbers of float16, also behind a fit of the outputs") {
  const Folder folder;
  PrepareRows(folder);
  for (const std::string rounding : {"nearest", "compensated"}) {
    (void)RunFor(folder, "gguf", {"quantizer.rounding=" + rounding, "quantizer.output_correction=fit"});
    const torch::Tensor scales = ScalesOf(folder);
    CHECK(torch::equal(scales.to(torch::kFloat16).to(torch::kFloat32), scales));
  }
}

TEST_CASE("a plan states what keeping to a format costs, never less than nothing for exact") {
  const Folder folder;
  PrepareRows(folder);
  double most = 0.0;
  for (const std::string format : {"onnx", "qonnx", "gguf", "compressed-tensors", "packed"}) {
    for (const std::string budget : {"3", "4", "5.5"}) {
      if (format == "gguf" && budget == "3") continue;  // nothing below four bits has blocks of rows of 32
      INFO(format << " at " << budget);
      const auto plan =
          pipeline::Allocate(
              SharedOptions(folder, {"quantizer.exportable=" + format, "allocate.budget.average_bits=" + budget}),
              SilentSink())
              .plan;
      REQUIRE(plan.exportable->predicted_loss_rise.has_value());
      const double cost = *plan.exportable->predicted_loss_rise - *plan.exportable->unrestricted_loss_rise;
      CHECK(cost >= 0.0);
      CHECK(*plan.exportable->predicted_loss_rise == plan.achieved.predicted_loss_rise);
      if (format == "packed") CHECK(cost == 0.0);
      most = std::max(most, cost);
    }
  }
  CHECK(most > 0.0);
}

TEST_CASE("fits and tables made for one format, or for none, are not taken for another, and taken again for the same") {
  const Folder folder;
  PrepareRows(folder);
  const auto reused = [](const pipeline::RunReport& report, const std::string& stage) {
    for (const auto& status : report.stages) {
      if (status.name == stage) return status.reused;
    }
    FAIL("no stage " << stage);
    return false;
  };
  const std::vector<std::string> options = {"allocate.bits=[2, 4, 8]"};
  const auto text = [&] { return ReadFile(folder.path / "out/sensitivity.json", "table"); };
  const auto allocate = [&](const std::string& format) {
    auto with = options;
    with.push_back("quantizer.exportable=" + format);
    return pipeline::Allocate(SharedOptions(folder, with), SilentSink());
  };
  (void)allocate("none");
  const std::string free = text();
  CHECK_FALSE(reused(allocate("onnx"), "sensitivity"));
  CHECK(text() != free);
  const std::string restricted = text();
  CHECK(reused(allocate("onnx"), "sensitivity"));
  CHECK_FALSE(reused(allocate("none"), "sensitivity"));
  CHECK(text() == free);
  (void)allocate("onnx");
  CHECK(text() == restricted);
}

TEST_CASE(
    "what a format does not hold is one line that names it and the widths it holds, before anything is measured") {
  const Folder folder;
  PrepareRows(folder);
  CHECK_THAT(ErrorFor(folder, "onnx", {"allocate.bits=[2, 3, 4]"}), ContainsSubstring("allocate.bits holds 3") &&
                                                                        ContainsSubstring("onnx") &&
                                                                        ContainsSubstring("0, 2, 4, 8"));
  CHECK_THAT(ErrorFor(folder, "gguf", {"allocate.bits=[2, 4]"}),
             ContainsSubstring("allocate.bits holds 2") && ContainsSubstring("4, 5, 8"));
  CHECK_THAT(ErrorFor(folder, "onnx", {"allocate.pins={fc1: 5}"}), ContainsSubstring("allocate.pins.fc1 holds 5"));
  CHECK_THAT(ErrorFor(folder, "onnx", {"quantizer.grid=half"}), ContainsSubstring("quantizer.grid half"));
  CHECK_THAT(ErrorFor(folder, "gguf", {"allocate.activation_bits=[8]"}), ContainsSubstring("allocate.activation_bits"));
  CHECK_THAT(ErrorFor(folder, "gguf", {"allocate.budget.average_bits=3"}),
             ContainsSubstring("cannot be met") && ContainsSubstring("gguf leaves the widths 4, 5, 8"));
  CHECK_THAT(ErrorFor(folder, "onxn"), ContainsSubstring("quantizer.exportable") && ContainsSubstring("nearest: onnx"));
  CHECK_FALSE(std::filesystem::exists(folder.path / "out/posterior.pt"));
  // A layer that is excluded does not narrow the others: rows of 512 have blocks of 2 and 3 bits.
  const auto plan = RunFor(folder, "gguf", {"allocate.exclude=[fc2]", "allocate.budget.average_bits=3"}).plan;
  CHECK(plan.exportable->bits == std::vector<int>{1, 2, 3, 4, 5, 6, 8});
}

TEST_CASE("a network that a format cannot write is refused before anything is measured, with the operator") {
  const Folder folder;
  PrepareRows(folder);
  torch::jit::Module module("Net"), fc("fc");
  fc.register_parameter("weight", torch::randn({5, 64}), false);
  module.register_module("fc", fc);
  module.define("def forward(self, x):\n  return torch.linear(torch.flatten(torch.i0(x), 1), self.fc.weight)\n");
  module.eval();
  module.save((folder.path / "model.pt").string());
  CHECK_THAT(ErrorFor(folder, "onnx"), ContainsSubstring("quantizer.exportable onnx") && ContainsSubstring("i0"));
  CHECK_FALSE(std::filesystem::exists(folder.path / "out/posterior.pt"));
  CHECK(RunFor(folder, "gguf").plan.layers[0].bits <= 8);
  CHECK_THAT(ErrorFor(folder, "autoround"), ContainsSubstring("holds no layer") && ContainsSubstring("32"));
}

TEST_CASE("a plan for a format stays one when it is verified again, and an edit to what it does not hold is refused") {
  const Folder folder;
  PrepareRows(folder);
  const auto run = RunFor(folder, "onnx", {"allocate.budget.average_bits=3"});
  const auto file = folder.path / "out/plan.yaml", mine = folder.path / "mine.yaml";
  pipeline::VerifyPlanOptions verify;
  verify.recipe = SharedOptions(folder, {"quantizer.exportable=onnx"});
  verify.plan = mine;
  verify.out_plan = folder.path / "verified.yaml";
  Plan plan = LoadPlan(file);
  WriteFileAtomically(mine, DumpPlan(plan));
  const Plan again = pipeline::Verify(verify, SilentSink()).plan;
  CHECK(again.verified->quantized.nll == run.plan.verified->quantized.nll);
  CHECK(again.exportable->unrestricted_loss_rise == run.plan.exportable->unrestricted_loss_rise);
  // Another width that it holds: what was predicted of the widths goes. The recipe need not say it again.
  verify.recipe = SharedOptions(folder, {});
  plan.layers[0].bits = plan.layers[0].bits == 8 ? 4 : 8;
  WriteFileAtomically(mine, DumpPlan(plan));
  const Plan edited = pipeline::Verify(verify, SilentSink()).plan;
  CHECK(edited.quantizer.exportable == "onnx");
  CHECK_FALSE(edited.exportable->predicted_loss_rise.has_value());
  plan.layers[0].bits = 5;
  WriteFileAtomically(mine, DumpPlan(plan));
  CHECK_THROWS_WITH(pipeline::Verify(verify, SilentSink()), ContainsSubstring("onnx") &&
                                                                ContainsSubstring("conv has 5 bits") &&
                                                                ContainsSubstring("0, 2, 4, 8"));
}

}  // namespace bitplan
