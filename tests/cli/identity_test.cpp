// What a network is, and which layer a plan speaks of.
#include <nlohmann/json.hpp>

#include "bitplan/models/network.h"
#include "cli/program.h"
#include "cli/report.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

// Two linear layers on 28x28 images; `turned` reads the pixels backwards.
void WriteTwoLayers(const std::filesystem::path& file, bool turned) {
  torch::manual_seed(5);
  torch::jit::Module module("two_layers");
  module.register_parameter("fc1", torch::randn({64, 784}) / 28.0, false);
  module.register_parameter("fc2", torch::randn({4, 64}) / 4.0, false);
  module.define(std::string("def forward(self, x):\n  h = torch.flatten(x, 1)\n") +
                (turned ? "  h = torch.flip(h, [1])\n" : "") +
                "  return torch.linear(torch.relu(torch.linear(h, self.fc1)), self.fc2)\n");
  bitplan::SaveModule(module, file);
}

}  // namespace

TEST_CASE("the same weights with another forward are measured anew, and quantized.pt is the new network") {
  const Workplace place;
  place.EditRecipe("architecture: lenet-300-100", "file: net.pt");
  const std::vector<std::string> run = {"run", place.recipe(), "--out", "out", "--json"};
  WriteTwoLayers(place / "net.pt", true);
  const auto before = ReportOf(place, run);
  WriteTwoLayers(place / "net.pt", false);
  const auto after = ReportOf(place, run);
  CHECK(after.at("verified").at("float") != before.at("verified").at("float"));
  CHECK(after.at("model").at("sha256") != before.at("model").at("sha256"));
  for (const auto& stage : after.at("stages")) CHECK_FALSE(stage.at("reused").get<bool>());
  torch::jit::Module quantized = bitplan::LoadModule(place / "out/quantized.pt");
  CHECK(quantized.get_method("forward").graph()->toString().find("flip") == std::string::npos);
}

TEST_CASE("a plan whose layers stand in another order gives every layer the bits that it names") {
  const Workplace place;
  place.EditRecipe("architecture: lenet-300-100", "file: net.pt");
  WriteTwoLayers(place / "net.pt", false);
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  std::string plan = ReadText(place / "out/plan.yaml");
  const auto line_of = [&](const std::string& name) {
    const auto begin = plan.find("  - {name: " + name);
    REQUIRE(begin != std::string::npos);
    return plan.substr(begin, plan.find('\n', begin) - begin);
  };
  const auto with_bits = [](std::string line, int bits) {
    const auto at = line.find("bits: ");
    return line.replace(at + 6, 1, std::to_string(bits));
  };
  const std::string first = line_of("fc1"), second = line_of("fc2");
  plan = Replaced(plan, first, "@");
  plan = Replaced(plan, second, with_bits(first, 2));
  plan = Replaced(plan, "@", with_bits(second, 7));
  WriteText(place / "turned.yaml", plan);
  const auto report = ReportOf(place, {"verify", place.recipe(), "--out", "out", "--plan", "turned.yaml", "--out-plan",
                                       "measured.yaml", "--json"});
  for (const auto& layer : report.at("layers")) CHECK(layer.at("bits") == (layer.at("name") == "fc1" ? 2 : 7));
  const double weights = 64 * 784 + 4 * 64;
  CHECK(report.at("achieved").at("average_bits").get<double>() ==
        Approx((2.0 * 64 * 784 + 7.0 * 4 * 64) / weights).margin(1e-5));
}
