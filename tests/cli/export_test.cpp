// `bitplan export`, and what of a run it reads.
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "bitplan/exporters/exporter.h"
#include "bitplan/exporters/quantized_network.h"
#include "bitplan/io/plan.h"
#include "bitplan/models/network.h"
#include "cli/program.h"
#include "exporters/onnx_reader.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

bool SameBytes(const torch::Tensor& a, const torch::Tensor& b) {
  const torch::Tensor one = a.contiguous(), other = b.contiguous();
  return one.sizes() == other.sizes() && one.scalar_type() == other.scalar_type() &&
         std::memcmp(one.data_ptr(), other.data_ptr(), one.nbytes()) == 0;
}

std::vector<std::string> Compensated(const Workplace& place, const std::string& command, const std::string& bits) {
  return {command,
          place.recipe(),
          "--out",
          "out",
          "--json",
          "--set",
          "quantizer.rounding=compensated",
          "--set",
          "allocate.budget.average_bits=" + bits};
}

// The Python of docs/formats.md, as it stands there.
std::string ReaderOfTheDocs() {
  const std::string page = ReadText(std::filesystem::path(BITPLAN_SOURCE_DIR) / "docs/formats.md");
  const std::string begin = "```python\n";
  const auto from = page.find(begin);
  REQUIRE(from != std::string::npos);
  const auto to = page.find("```", from + begin.size());
  return page.substr(from + begin.size(), to - from - begin.size());
}

}  // namespace

TEST_CASE("the packed file holds quantized.pt bit for bit, its size is what run states, and its plan is plan.yaml") {
  const Workplace place;
  const auto run = place.Bitplan(Compensated(place, "run", "3"));
  REQUIRE(run.code == 0);
  const auto exported = place.Bitplan({"export", place.recipe(), "--out", "out", "--to", "packed", "--json"});
  INFO(exported.err);
  REQUIRE(exported.code == 0);
  const auto report = nlohmann::json::parse(exported.out), stated = nlohmann::json::parse(run.out);
  const auto file = place / "out/quantized.safetensors";
  CHECK(report.at("bytes") == std::filesystem::file_size(file));
  CHECK(report.at("bytes") == stated.at("packed_bytes"));
  CHECK(report.at("stored_bytes") == stated.at("achieved").at("stored_bytes"));
  CHECK(report.at("float_bytes").get<std::int64_t>() ==
        stated.at("achieved").at("network_bytes").get<std::int64_t>() - report.at("stored_bytes").get<std::int64_t>());
  CHECK(report.at("bytes").get<double>() <= 1.02 * stated.at("achieved").at("network_bytes").get<double>() + 4096);

  const auto network = bitplan::LoadQuantizedNetwork(file);
  const auto module = bitplan::LoadModule(place / "out/quantized.pt");
  CHECK(network.plan == ReadText(place / "out/plan.yaml"));
  const auto plan = bitplan::LoadPlan(place / "out/plan.yaml");
  REQUIRE(network.layers.size() == plan.layers.size());
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    const auto& layer = network.layers[l];
    CHECK(layer.name == plan.layers[l].name);
    CHECK(layer.blocks.at(0).bits == plan.layers[l].bits);
    CHECK(layer.blocks.at(0).grid() == plan.layers[l].grid);
    CHECK(SameBytes(layer.Values(), bitplan::GetTensor(module, layer.parameter)));
  }
  for (const auto& [name, value] : network.others) CHECK(SameBytes(value, bitplan::GetTensor(module, name)));
  auto rebuilt = bitplan::LoadModule(place / "out/model.pt");
  bitplan::WriteWeights(network, rebuilt);
  CHECK(bitplan::ModelHash(rebuilt) == bitplan::ModelHash(module));
}

TEST_CASE("the Python of the docs reads the weights of quantized.pt from the packed file, bit for bit") {
  std::string python;
  for (const char* candidate : {"python3", "/usr/bin/python3"}) {
    const bool has_numpy = std::system((std::string(candidate) + " -c 'import numpy' > /dev/null 2>&1").c_str()) == 0;
    if (python.empty() && has_numpy) python = candidate;
  }
  if (python.empty()) {
    WARN("no numpy: the Python reader of docs/formats.md was not run");
    return;
  }
  const Workplace place;
  REQUIRE(place.Bitplan(Compensated(place, "run", "2.5")).code == 0);
  REQUIRE(place.Bitplan({"export", place.recipe(), "--out", "out", "--to", "packed"}).code == 0);
  WriteText(place / "read.py", ReaderOfTheDocs() + R"(
network = read_quantized("out/quantized.safetensors")
assert network["plan"] == open("out/plan.yaml").read()
for name, values in (network["weights"] | network["others"]).items():
    assert values.dtype == np.float32, name
    values.tofile(name + ".bin")
    print(name, *values.shape)
)");
  REQUIRE(std::system(("cd '" + (place / "").string() + "' && " + python + " read.py > names.txt").c_str()) == 0);
  const auto module = bitplan::LoadModule(place / "out/quantized.pt");
  std::size_t read = 0;
  for (const auto& entry : module.named_parameters()) {
    INFO(entry.name);
    const std::string bytes = ReadText(place / (entry.name + ".bin"));
    REQUIRE(bytes.size() == entry.value.nbytes());
    CHECK(std::memcmp(bytes.data(), entry.value.data_ptr(), bytes.size()) == 0);
    ++read;
  }
  CHECK(read == 6);  // three layers with their biases
}

TEST_CASE("TorchScript and JSON leave under the name that the user gives") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto copied =
      place.Bitplan({"export", place.recipe(), "--out", "out", "--to", "torchscript", "--file", "mine.pt"});
  REQUIRE(copied.code == 0);
  CHECK(ReadText(place / "mine.pt") == ReadText(place / "out/quantized.pt"));
  // Without a name it is there already.
  REQUIRE(place.Bitplan({"export", "--out", "out", "--to", "torchscript"}).code == 0);
  CHECK(ReadText(place / "mine.pt") == ReadText(place / "out/quantized.pt"));
  REQUIRE(place.Bitplan({"export", place.recipe(), "--out", "out", "--to", "json"}).code == 0);
  const auto json = nlohmann::json::parse(ReadText(place / "out/quantized.json"));
  CHECK(json.at("layers").size() == 3);
  CHECK(json.at("plan") == ReadText(place / "out/plan.yaml"));
  // Every format leaves under its own name, with the second file where it has one, and leaves nothing else behind.
  for (const auto& exporter : bitplan::Exporters()) {
    const auto made = place.Bitplan({"export", "--out", "out", "--to", exporter.name, "--json"});
    INFO(exporter.name << ": " << made.err);
    if (std::string(exporter.name) == "modelopt" || std::string(exporter.name) == "autoround") {
      if (made.code != 0) CHECK_THAT(ErrorLine(made), ContainsSubstring("allocate.bits"));  // a layer of one bit
      continue;
    }
    REQUIRE(made.code == 0);
    const auto report = nlohmann::json::parse(made.out);
    auto bytes = std::filesystem::file_size(place / "out" / exporter.file);
    const auto second = bitplan::SecondFile(exporter, place / "out" / exporter.file);
    CHECK(report.contains("second_file") == !second.empty());
    if (!second.empty()) bytes += std::filesystem::file_size(second);
    CHECK(report.at("bytes") == bytes);
  }
  CHECK(NothingHalfWritten(place / "out/plans"));
  REQUIRE(place.Bitplan({"export", "--out", "out", "--to", "c", "--file", "net.c"}).code == 0);
  CHECK_THAT(ReadText(place / "net.c"), ContainsSubstring("#include \"net.h\""));
  CHECK_THAT(ReadText(place / "net.h"), ContainsSubstring("net_unpack"));
}

TEST_CASE("of two files neither is written where one cannot be, and the second must have a name of its own") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto same = place.Bitplan({"export", "--out", "out", "--to", "c", "--file", "net.h"});
  CHECK(same.code == 64);
  CHECK_THAT(ErrorLine(same), ContainsSubstring("quantized.c"));
  CHECK(place.Bitplan({"export", "--out", "out", "--to", "c", "--file", "net.c"}, 20000).code == 74);
  CHECK(place.Bitplan({"export", "--out", "out", "--to", "c"}, 20000).code == 74);
  for (const char* file : {"net.c", "net.h", "out/quantized.c", "out/quantized.h"}) {
    INFO(file);
    CHECK_FALSE(std::filesystem::exists(place / file));
  }
  WriteText(place / "out/quantized.h", "mine");
  REQUIRE(place.Bitplan({"export", "--out", "out", "--to", "c"}).code == 0);
  CHECK(ReadText(place / "out/quantized.kept.h") == "mine");
}

TEST_CASE("widths of another tool become a plan that verify measures, and diff sets it beside the other") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto first = place / "first.yaml";
  std::filesystem::copy_file(place / "out/plan.yaml", first);
  auto plan = bitplan::LoadPlan(first);
  std::string csv = "name,bits\n";
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    csv += (l == 0 ? plan.layers[l].name + ".weight" : plan.layers[l].name) + ",5\n";
  }
  WriteText(place / "widths.csv", csv);
  const auto imported = place.Bitplan({"import", "widths.csv", "--recipe", place.recipe(), "--out", "out"});
  INFO(imported.err);
  REQUIRE(imported.code == 0);
  plan = bitplan::LoadPlan(place / "out/plan.yaml");
  CHECK(plan.allocator == "imported");
  CHECK(plan.achieved.average_bits == 5.0);
  CHECK(plan.achieved.predicted_loss_rise > 0.0);
  CHECK_FALSE(plan.verified);
  const auto verified = place.Bitplan({"verify", place.recipe(), "--out", "out"});
  INFO(verified.err);
  REQUIRE(verified.code == 0);
  const auto diff = place.Bitplan({"diff", "first.yaml", "out/plan.yaml", "--json"});
  REQUIRE(diff.code == 0);
  const auto json = nlohmann::json::parse(diff.out);
  CHECK(json.at("notes").empty());
  CHECK(json.at("change").at("average_bits").get<double>() ==
        Approx(5.0 - bitplan::LoadPlan(first).achieved.average_bits));
  CHECK(json.at("change").at("accuracy").is_number());
  CHECK_THAT(place.Bitplan({"diff", "first.yaml", "out/plan.yaml"}).out,
             ContainsSubstring("predicted rise") && ContainsSubstring("accuracy"));

  WriteText(place / "widths.csv", "fc1,5\nfc9,5\n");
  const auto unknown = place.Bitplan({"import", "widths.csv", "--recipe", place.recipe(), "--out", "out"});
  CHECK(unknown.code == 65);
  CHECK_THAT(ErrorLine(unknown), ContainsSubstring("'fc9'"));
  WriteText(place / "widths.csv", plan.layers[0].name + ",5\n");
  const auto missing = place.Bitplan({"import", "widths.csv", "--recipe", place.recipe(), "--out", "out"});
  CHECK(missing.code == 65);
  CHECK_THAT(ErrorLine(missing), ContainsSubstring("'" + plan.layers[1].name + "' has no width"));
}

TEST_CASE("the ONNX file lies beside the plan or where the user wants it, and says what the network takes") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto codes = bitplan::LoadQuantizedNetwork(place / "out/codes.safetensors");
  CHECK(codes.input.shape == std::vector<std::int64_t>{1, 28, 28});
  CHECK(codes.input.type == torch::kFloat32);
  const auto exported = place.Bitplan({"export", place.recipe(), "--out", "out", "--to", "onnx", "--json"});
  INFO(exported.err);
  REQUIRE(exported.code == 0);
  CHECK(nlohmann::json::parse(exported.out).at("bytes") == std::filesystem::file_size(place / "out/quantized.onnx"));
  REQUIRE(place.Bitplan({"export", "--out", "out", "--to", "onnx", "--file", "mine.onnx"}).code == 0);
  const auto model = bitplan::testing::ReadOnnx(ReadText(place / "mine.onnx"));
  CHECK(ReadText(place / "mine.onnx") == ReadText(place / "out/quantized.onnx"));
  CHECK(model.metadata.at("plan") == ReadText(place / "out/plan.yaml"));
  CHECK(model.ports.at("input") == std::vector<std::string>{"batch", "1", "28", "28"});
  CHECK(std::filesystem::file_size(place / "mine.onnx") < std::filesystem::file_size(place / "out/quantized.pt") / 3);
  // The packed file holds no graph, so it does not say it.
  REQUIRE(place.Bitplan({"export", "--out", "out", "--to", "packed"}).code == 0);
  CHECK(bitplan::LoadQuantizedNetwork(place / "out/quantized.safetensors").input.shape.empty());
}

TEST_CASE("an older plan of the folder is exported by its file") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  REQUIRE(place.Bitplan({"export", "--out", "out", "--to", "packed", "--file", "first.safetensors"}).code == 0);
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out", "--set", "allocate.budget.average_bits=1.5"}).code ==
          0);
  for (const auto& entry : std::filesystem::directory_iterator(place / "out/plans")) {
    const auto made =
        place.Bitplan({"export", place.recipe(), "--out", "out", "--to", "packed", "--plan",
                       (entry.path() / "plan.yaml").string(), "--file", entry.path().filename().string()});
    INFO(made.err);
    REQUIRE(made.code == 0);
  }
  int equal = 0, all = 0;
  for (const auto& entry : std::filesystem::directory_iterator(place / "out/plans")) {
    equal += ReadText(place / entry.path().filename().string()) == ReadText(place / "first.safetensors") ? 1 : 0;
    ++all;
  }
  CHECK(all == 2);
  CHECK(equal == 1);
}

TEST_CASE("a run that continues reads the codes that apply has kept") {
  const Workplace place;
  REQUIRE(place.Bitplan(Compensated(place, "run", "3")).code == 0);
  const auto again = place.Bitplan(Compensated(place, "run", "3"));
  REQUIRE(again.code == 0);
  CHECK(nlohmann::json::parse(again.out).at("packed_bytes") > 0);
  // Codes that were tampered with are made again, with the network.
  const std::string codes = ReadText(place / "out/codes.safetensors");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(place / "out")) {
    if (entry.path().filename() == "codes.safetensors") WriteText(entry.path(), "nothing");
  }
  const auto third = place.Bitplan(Compensated(place, "run", "3"));
  REQUIRE(third.code == 0);
  CHECK(ReadText(place / "out/codes.safetensors") == codes);
}

TEST_CASE("what cannot be exported says which command makes it, and leaves nothing behind") {
  const Workplace place;
  const auto refused = [&](const std::vector<std::string>& words, int code, const std::string& text) {
    std::vector<std::string> command = {"export"};
    command.insert(command.end(), words.begin(), words.end());
    const auto outcome = place.Bitplan(command);
    INFO(outcome.err);
    CHECK(outcome.code == code);
    CHECK_THAT(ErrorLine(outcome), ContainsSubstring(text));
    CHECK(outcome.out.empty());
  };
  refused({place.recipe(), "--out", "out", "--to", "packed"}, 66, "bitplan run");
  CHECK_FALSE(std::filesystem::exists(place / "out"));
  refused({"--to", "packed"}, 64, "needs a recipe");
  refused({place.recipe(), "--out", "out"}, 64, "--to");
  refused({place.recipe(), "--out", "out", "--to", "packd"}, 64, "packed");

  REQUIRE(place.Bitplan({"allocate", place.recipe(), "--out", "out"}).code == 0);
  refused({place.recipe(), "--out", "out", "--to", "packed"}, 66, "bitplan verify");
  REQUIRE(place.Bitplan({"verify", place.recipe(), "--out", "out"}).code == 0);
  REQUIRE(place.Bitplan({"export", place.recipe(), "--out", "out", "--to", "packed"}).code == 0);

  // The network of the plan before.
  REQUIRE(
      place.Bitplan({"allocate", place.recipe(), "--out", "out", "--set", "allocate.budget.average_bits=1.5"}).code ==
      0);
  refused({place.recipe(), "--out", "out", "--to", "json"}, 65, "another plan");
  REQUIRE(place.Bitplan({"verify", place.recipe(), "--out", "out"}).code == 0);
  const std::string network = ReadText(place / "out/quantized.pt");
  const std::string plan = ReadText(place / "out/plan.yaml");
  for (const char* file : {"out/plan.yaml", "out/codes.safetensors", "out/manifest.json", "out/model.pt"}) {
    refused({place.recipe(), "--out", "out", "--to", "json", "--file", file}, 64, "file of the run");
  }
  refused({place.recipe(), "--out", "out", "--to", "json", "--file", "out/quantized.pt"}, 64, "file of the run");
  CHECK(ReadText(place / "out/plan.yaml") == plan);
  CHECK(ReadText(place / "out/quantized.pt") == network);
  refused({place.recipe(), "--out", "out", "--to", "json", "--file", "no/such/folder/x.json"}, 74, "cannot write");
  const auto full = place.Bitplan({"export", place.recipe(), "--out", "out", "--to", "json"}, 20000);
  CHECK(full.code == 74);
  CHECK_FALSE(std::filesystem::exists(place / "out/quantized.json"));
  for (const auto& entry : std::filesystem::directory_iterator(place / "out")) {
    CHECK(entry.path().string().find(".tmp") == std::string::npos);
  }

  // Weights that are not those of the codes.
  std::filesystem::remove(place / "out/quantized.pt");
  std::filesystem::copy_file(place / "out/model.pt", place / "out/quantized.pt");
  refused({place.recipe(), "--out", "out", "--to", "packed"}, 65, "bitplan verify");
  std::filesystem::remove(place / "out/quantized.pt");
  refused({place.recipe(), "--out", "out", "--to", "packed"}, 66, "quantized.pt is missing");
}

TEST_CASE("a file of the user's own under the name of an export is moved aside") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  WriteText(place / "out/quantized.safetensors", "mine");
  const auto exported = place.Bitplan({"export", place.recipe(), "--out", "out", "--to", "packed"});
  REQUIRE(exported.code == 0);
  CHECK_THAT(exported.err, ContainsSubstring("quantized.kept.safetensors"));
  CHECK(ReadText(place / "out/quantized.kept.safetensors") == "mine");
  const auto again = place.Bitplan({"export", place.recipe(), "--out", "out", "--to", "packed"});
  REQUIRE(again.code == 0);
  CHECK_FALSE(std::filesystem::exists(place / "out/quantized.kept-2.safetensors"));
}

TEST_CASE("a run says which exports beside its plan are of another one, until they are written anew") {
  const Workplace place;
  const auto notes = [&](const std::string& bits) {
    const auto run = place.Bitplan(Compensated(place, "run", bits));
    REQUIRE(run.code == 0);
    std::string text;
    const auto report = nlohmann::json::parse(run.out);
    for (const auto& note : report.at("notes")) text += note.get<std::string>() + "\n";
    return text;
  };
  const auto exported = [&](const std::string& format) {
    return place.Bitplan({"export", place.recipe(), "--out", "out", "--to", format}).code == 0;
  };
  (void)notes("3");
  REQUIRE(exported("packed"));
  REQUIRE(exported("c"));
  CHECK_THAT(notes("3"), !ContainsSubstring("exported from another plan"));
  CHECK_THAT(notes("2"), ContainsSubstring("quantized.safetensors was exported from another plan; `bitplan export --to "
                                           "packed` writes that of this one") &&
                             ContainsSubstring("quantized.c was exported"));
  REQUIRE(exported("packed"));
  CHECK_THAT(notes("2"), !ContainsSubstring("quantized.safetensors was") && ContainsSubstring("quantized.c was"));
  CHECK_THAT(notes("3"), ContainsSubstring("quantized.safetensors was") && !ContainsSubstring("quantized.c was"));
}

TEST_CASE("settings that the plan was not made with are refused by export") {
  const Workplace place;
  REQUIRE(place.Bitplan(Compensated(place, "run", "3")).code == 0);
  const auto exported = [&](const std::vector<std::string>& settings) {
    std::vector<std::string> words = {"export", place.recipe(), "--out", "out", "--to", "json"};
    if (!settings.empty()) words.emplace_back("--set");
    words.insert(words.end(), settings.begin(), settings.end());
    return place.Bitplan(words);
  };
  const auto other = exported({"allocate.budget.average_bits=2"});
  CHECK(other.code == 64);
  CHECK_THAT(ErrorLine(other), ContainsSubstring("average_bits 3") && ContainsSubstring("bitplan run"));
  for (const char* setting : {"allocate.allocator=uniform", "quantizer.granularity=tensor", "allocate.pins={fc1: 8}",
                              "model.architecture=lenet5"}) {
    const auto refused = exported({"quantizer.rounding=compensated", "allocate.budget.average_bits=3", setting});
    INFO(setting << ": " << refused.err);
    CHECK(refused.code == 64);
  }
  CHECK(!std::filesystem::exists(place / "out/quantized.json"));
  CHECK(exported({"quantizer.rounding=compensated", "allocate.budget.average_bits=3"}).code == 0);
  CHECK(exported({}).code == 0);
}
