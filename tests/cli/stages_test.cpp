// The stages alone, hand-edited plans, and what the program prints about itself.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "cli/report.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

TEST_CASE("the stages alone end with the plan of a whole run") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "whole"}).code == 0);
  for (const char* stage : {"train", "posterior", "allocate"}) {
    const auto outcome = place.Bitplan({stage, place.recipe(), "--out", "steps"});
    INFO(stage << ": " << outcome.err);
    REQUIRE(outcome.code == 0);
  }
  CHECK_FALSE(std::filesystem::exists(place / "steps/quantized.pt"));
  CHECK(ReadText(place / "steps/plan.yaml").find("verified:") == std::string::npos);
  REQUIRE(place.Bitplan({"verify", place.recipe(), "--out", "steps"}).code == 0);
  CHECK(ReadText(place / "steps/plan.yaml") == ReadText(place / "whole/plan.yaml"));
}

TEST_CASE("scales are searched for once, and another budget and a comparison take them from the folder") {
  const Workplace place;
  const auto at = [&](const std::string& command, const std::string& folder, const std::string& setting) {
    const auto outcome = place.Bitplan({command, place.recipe(), "--out", folder, "--set", setting});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
  };
  const auto searches = [&] {
    return nlohmann::json::parse(ReadText(place / "out/manifest.json")).at("stages").at("fits");
  };
  at("run", "out", "allocate.budget.average_bits=3.0");
  const auto first = searches();
  REQUIRE(first.size() == 1);
  at("run", "out", "allocate.budget.average_bits=2.0");
  const auto plan = ReadText(place / "out/plan.yaml");
  at("compare", "out", "compare={budgets: [2], allocators: [exact], calibration_seeds: 1}");
  CHECK(searches() == first);
  at("run", "other", "allocate.budget.average_bits=2.0");
  CHECK(ReadText(place / "other/plan.yaml") == plan);
  // Other ranges have other scales.
  at("allocate", "out", "quantizer.range=max");
  CHECK(searches() != first);
}

TEST_CASE("allocate keeps the measurement of a plan that it finds again") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  REQUIRE(place.Bitplan({"allocate", place.recipe(), "--out", "out"}).code == 0);
  CHECK(ReadText(place / "out/plan.yaml") == plan);
}

TEST_CASE("a plan edited by hand is measured with its own bits") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out", "--set", "allocate.allocator=uniform"}).code == 0);
  auto plan = ReadText(place / "out/plan.yaml");
  CHECK_THAT(plan, ContainsSubstring("bits: 3, grid"));
  WriteText(place / "edited.yaml", Replaced(plan, "bits: 3, grid", "bits: 8, grid"));
  const auto outcome = place.Bitplan(
      {"verify", place.recipe(), "--out", "out", "--plan", "edited.yaml", "--out-plan", "measured.yaml", "--json"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const auto report = nlohmann::json::parse(outcome.out);
  CHECK(report.at("layers").at(0).at("bits") == 8);
  CHECK(report.at("achieved").at("average_bits").get<double>() > 3.0);
  CHECK(report.at("verified").at("samples") == 100);
  CHECK(ReadText(place / "out/plan.yaml") == plan);
  CHECK_THAT(ReadText(place / "measured.yaml"), ContainsSubstring("verified:"));
}

TEST_CASE("what a plan leaves in float, and a budget that it breaks, are said") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out", "--set", "allocate.allocator=uniform"}).code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  WriteText(place / "edited.yaml",
            Replaced(Replaced(plan, "bits: 3, grid", "bits: 8, grid"), "bits: 3, grid", "bits: 16, grid"));
  const auto outcome = place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", "edited.yaml"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  CHECK_THAT(outcome.out, ContainsSubstring("(left alone)") && ContainsSubstring("over budget"));
  CHECK_THAT(outcome.out, ContainsSubstring(" float ") && !ContainsSubstring("  16  "));
}

TEST_CASE("a network that is left in float for the most part is not called many times smaller") {
  const Workplace place;
  torch::manual_seed(1);
  torch::jit::Module module("Net");
  module.register_parameter("kernel", 0.1 * torch::randn({64, 28, 5}), false);
  module.register_parameter("fc", torch::randn({4, 64}), false);
  module.register_parameter("shift", torch::zeros({4}), false);
  module.define(R"(
def forward(self, x):
    h = torch.relu(torch.einsum("ncl,ock->nok", [x.squeeze(1), self.kernel])).mean([2])
    return torch.linear(h, self.fc, self.shift)
)");
  module.save((place / "model.pt").string());
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
  const auto outcome = place.Bitplan({"run", place.recipe(), "--out", "out"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  constexpr double kAll = 64 * 28 * 5 + 4 * 64 + 4;
  CHECK_THAT(outcome.out, ContainsSubstring("256 weights in 1 layer\n"));
  CHECK_THAT(outcome.out, ContainsSubstring("left in float      97 % of all weights, 8,964: kernel (used by "
                                            "aten::einsum); 4 in 1 bias\n"));
  CHECK_THAT(outcome.out, ContainsSubstring("whole network") && ContainsSubstring("(1.0 times smaller; packed file "));
  CHECK_THAT(ReadText(place / "out/plan.yaml"), ContainsSubstring("{name: kernel, shape: [64, 28, 5], reason: "));
  for (const char* command : {"run", "allocate", "verify"}) {
    const auto json = place.Bitplan({command, place.recipe(), "--out", "out", "--json"});
    REQUIRE(json.code == 0);
    const auto report = nlohmann::json::parse(json.out);
    const auto& left = report.at("left_in_float");
    CHECK(left.at("weights") == 64 * 28 * 5 + 4);
    CHECK(left.at("share").get<double>() == Approx((64 * 28 * 5 + 4) / kAll).margin(1e-6));
    CHECK(left.at("tensors").at(0).at("name") == "kernel");
    const auto& achieved = report.at("achieved");
    CHECK(achieved.at("network_bytes") == achieved.at("stored_bytes").get<int>() + 4 * (64 * 28 * 5 + 4));
    CHECK(achieved.at("network_compression").get<double>() ==
          Approx(4 * kAll / achieved.at("network_bytes").get<double>()).margin(1e-4));
    CHECK(achieved.at("compression").get<double>() > 4.0);
  }
  const auto inspect = place.Bitplan({"inspect", "model.pt", "--shape", "1,28,28"});
  REQUIRE(inspect.code == 0);
  CHECK_THAT(inspect.out, ContainsSubstring("left in float      97 % of all weights, 8,964\n"));
  CHECK_THAT(inspect.out, ContainsSubstring("whole network      36,880 bytes in float\n"));
}

TEST_CASE("two plans are compared on the same samples") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out", "--set", "allocate.allocator=uniform"}).code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  WriteText(place / "one.yaml", Replaced(plan, "bits: 3, grid", "bits: 1, grid"));
  const auto compare = [&](const char* against) {
    const auto outcome = place.Bitplan({"verify", place.recipe(), "--out", "out", "--against", against, "--json"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    return nlohmann::json::parse(outcome.out);
  };
  const auto text = place.Bitplan({"verify", place.recipe(), "--out", "out", "--against", "one.yaml"}).out;
  const auto self = compare("out/plan.yaml").at("against").at("gain");
  CHECK(self.at("value") == 0.0);
  CHECK(self.at("mcnemar_p") == 1.0);
  const auto report = compare("one.yaml");
  const double mine = report.at("verified").at("quantized").at("accuracy");
  const double other = report.at("against").at("metrics").at("accuracy");
  CHECK(report.at("against").at("metrics").at("nll") != report.at("verified").at("quantized").at("nll"));
  const auto gain = report.at("against").at("gain");
  CHECK(gain.at("value").get<double>() == Approx(mine - other).margin(1e-9));
  const double low = 100.0 * gain.at("ci95").at(0).get<double>(), high = 100.0 * gain.at("ci95").at(1).get<double>();
  REQUIRE(high > low);
  const bool better = gain.at("value").get<double>() >= 0.0;
  CHECK_THAT(text, ContainsSubstring(
                       fmt::format("95 % interval [{:.2f}, {:.2f}]", better ? low : -high, better ? high : -low)));
}

TEST_CASE("a plan whose network the folder has is measured as it is, wherever its file lies") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out", "--set", "allocate.allocator=uniform"}).code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  WriteText(place / "copy.yaml", plan);
  WriteText(place / "other.yaml", Replaced(plan, "bits: 3, grid", "bits: 2, grid"));
  const auto verify = [&](const char* file) {
    const auto outcome = place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", file});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    return outcome.err;
  };
  CHECK_THAT(verify("other.yaml"), ContainsSubstring("rounding: "));
  CHECK_THAT(verify("copy.yaml"), !ContainsSubstring("rounding: "));
  const auto figures = [](const std::string& text) {
    const auto begin = text.find("verified:");
    return text.substr(begin, text.find("provenance:") - begin);
  };
  CHECK(figures(ReadText(place / "copy.yaml")) == figures(plan));
}

TEST_CASE("a plan is measured against one of another quantizer as that plan is by itself") {
  const Workplace place;
  const std::vector<std::string> settings = {"--set", "allocate.allocator=uniform", "quantizer.grid=zero",
                                             "quantizer.range=mse", "quantizer.rounding=nearest"};
  const auto report = [&](std::vector<std::string> words, const std::string& granularity) {
    words.insert(words.end(), settings.begin(), settings.end());
    words.push_back("quantizer.granularity=" + granularity);
    return ReportOf(place, std::move(words));
  };
  const auto nll = [](const nlohmann::json& metrics) { return metrics.at("nll").get<double>(); };
  const auto run = [&](const std::string& out, const std::string& granularity) {
    return nll(report({"run", place.recipe(), "--out", out}, granularity).at("verified").at("quantized"));
  };
  const double channel = run("a", "channel"), tensor = run("b", "tensor");
  REQUIRE(channel != tensor);
  const auto both = report({"verify", place.recipe(), "--out", "a", "--plan", "a/plan.yaml", "--against", "b/plan.yaml",
                            "--out-plan", "again.yaml"},
                           "channel");
  CHECK(nll(both.at("verified").at("quantized")) == Approx(channel).epsilon(1e-5));
  CHECK(nll(both.at("against").at("metrics")) == Approx(tensor).epsilon(1e-5));
}

TEST_CASE("verify --guard falls back to one width for all layers when the plan is worse on calibration images") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  const auto guarded = [&](const std::string& file) {
    const auto outcome = place.Bitplan(
        {"verify", place.recipe(), "--out", "out", "--plan", file, "--out-plan", "guarded.yaml", "--guard", "--json"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    return nlohmann::json::parse(outcome.out);
  };
  // The budget stays 3 bits; a plan without any weights is far worse than uniform there.
  auto poor = plan;
  for (const char* width : {"1", "2", "3", "4", "5", "6", "7", "8"}) {
    const auto from = std::string("bits: ") + width + ", grid";
    while (poor.find(from) != std::string::npos) poor = Replaced(poor, from, "bits: 0, grid");
  }
  WriteText(place / "poor.yaml", poor);
  const auto replaced = guarded("poor.yaml");
  CHECK(replaced.at("guard").at("replaced") == "quantile-inform");
  CHECK(replaced.at("guard").at("uniform_nll") < replaced.at("guard").at("plan_nll"));
  CHECK(replaced.at("allocator") == "uniform");
  for (const auto& layer : replaced.at("layers")) CHECK(layer.at("bits") == 3);
  CHECK(replaced.at("achieved").at("average_bits") == 3.0);
  CHECK_THAT(ReadText(place / "guarded.yaml"),
             ContainsSubstring("guard: {data: ") && ContainsSubstring("replaced: quantile-inform"));
  // What the guard left behind is as good as uniform and stays.
  WriteText(place / "again.yaml", ReadText(place / "guarded.yaml"));
  const auto kept = guarded("again.yaml");
  CHECK(kept.at("guard").at("replaced") == "");
  CHECK(kept.at("guard").at("plan_nll") == kept.at("guard").at("uniform_nll"));
}

TEST_CASE("a plan says how sure its widths are, and a hand edit takes that back") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  CHECK_THAT(plan, ContainsSubstring("confidence: "));
  const auto layers = [&](const std::string& metric, const std::string& draws) {
    const auto outcome = place.Bitplan({"allocate", place.recipe(), "--out", "out", "--json", "--set",
                                        "sensitivity.metric=" + metric, "--set", "allocate.draws=" + draws});
    REQUIRE(outcome.code == 0);
    return nlohmann::json::parse(outcome.out).at("layers");
  };
  for (const char* metric : {"posterior", "predictive"}) {
    for (const auto& layer : layers(metric, "4")) {
      CHECK(layer.at("confidence") >= 0.0);
      CHECK(layer.at("confidence") <= 1.0);
    }
  }
  // Scores alone, which no other calibration subset moves.
  for (const auto& layer : layers("predictive", "0")) CHECK_FALSE(layer.contains("confidence"));
  auto edited = plan;
  for (const char* width : {"2", "3", "4", "5"}) {
    const auto from = std::string("bits: ") + width + ", grid";
    while (edited.find(from) != std::string::npos) edited = Replaced(edited, from, "bits: 8, grid");
  }
  REQUIRE(edited != plan);
  WriteText(place / "edited.yaml", edited);
  REQUIRE(place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", "edited.yaml"}).code == 0);
  CHECK(ReadText(place / "edited.yaml").find("confidence") == std::string::npos);
}

TEST_CASE("a new plan in a folder says that the quantized network there is that of the plan before") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto allocate = [&](const std::string& budget) {
    const auto outcome =
        place.Bitplan({"allocate", place.recipe(), "--out", "out", "--set", "allocate.budget.average_bits=" + budget});
    REQUIRE(outcome.code == 0);
    return outcome.err;
  };
  CHECK_THAT(allocate("5"), ContainsSubstring("quantized.pt is the network of the plan before"));
  CHECK_THAT(allocate("3"), !ContainsSubstring("quantized.pt"));
}

TEST_CASE("a plan by output errors records the range of every layer and can be verified again") {
  const Workplace place;
  const std::vector<std::string> words = {"--out", "out", "--set", "quantizer.range=auto"};
  auto run = std::vector<std::string>{"run", place.recipe()};
  run.insert(run.end(), words.begin(), words.end());
  REQUIRE(place.Bitplan(run).code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  CHECK_THAT(plan, ContainsSubstring("range: auto") && ContainsSubstring("range: output"));
  std::filesystem::copy(place / "out/plan.yaml", place / "copy.yaml");
  REQUIRE(place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", "copy.yaml"}).code == 0);
  CHECK(ReadText(place / "copy.yaml") == plan);
}

TEST_CASE("allocate --curve solves many budgets from one table and writes no plan") {
  const Workplace place;
  const auto solve = [&](const char* allocator) {
    const auto outcome = place.Bitplan({"allocate", place.recipe(), "--out", "out", "--curve", "25", "--set",
                                        std::string("allocate.allocator=") + allocator, "--json"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    return nlohmann::json::parse(outcome.out).at("points");
  };
  const auto points = solve("exact");
  REQUIRE(points.size() == 25);
  for (std::size_t i = 0; i < points.size(); ++i) {
    CHECK(points[i].at("average_bits").get<double>() <= points[i].at("budget").get<double>() + 1e-6);
    CHECK(points[i].at("optimality_gap") == 0.0);
    if (i > 0) CHECK(points[i].at("predicted_loss_rise") <= points[i - 1].at("predicted_loss_rise"));
  }
  for (const int width : points.front().at("bits")) CHECK(width == 1);
  CHECK(points.back().at("budget") == 8.0);
  CHECK_FALSE(std::filesystem::exists(place / "out/plan.yaml"));
  const auto refused = place.Bitplan(
      {"allocate", place.recipe(), "--out", "out", "--curve", "25", "--set", "allocate.allocator=random-bits"});
  CHECK(refused.code == 64);
  CHECK_THAT(ErrorLine(refused), ContainsSubstring("random-bits"));
}

TEST_CASE("inspect lists layers, shapes, weights and multiply-accumulates") {
  const Workplace place;
  const auto outcome = place.Bitplan({"inspect", "lenet5-caffe"});
  REQUIRE(outcome.code == 0);
  CHECK_THAT(outcome.out,
             ContainsSubstring("20x1x5x5") && ContainsSubstring("430,500") && ContainsSubstring("288,000"));
  const auto json = nlohmann::json::parse(place.Bitplan({"inspect", "resnet20", "--json"}).out);
  CHECK(json.at("weights") == 268336);
  CHECK(json.at("layers").size() == 20);
}

TEST_CASE("inspect opens the model that a run wrote") {
  const Workplace place;
  REQUIRE(place.Bitplan({"train", place.recipe(), "--out", "out"}).code == 0);
  const auto json = nlohmann::json::parse(place.Bitplan({"inspect", "out/model.pt", "--json"}).out);
  CHECK(json.at("weights") == 784 * 300 + 300 * 100 + 100 * 10);
  CHECK(json.at("input_shape") == nlohmann::json({1, 28, 28}));
}

TEST_CASE("help lists every sub-command, and help recipe every section") {
  const Workplace place;
  const auto help = place.Bitplan({"help"});
  REQUIRE(help.code == 0);
  for (const char* name : {"run", "inspect", "train", "posterior", "allocate", "verify", "help"}) {
    CHECK_THAT(help.out, ContainsSubstring(name));
    CHECK(place.Bitplan({name, "--help"}).code == 0);
  }
  const auto recipe = place.Bitplan({"help", "recipe"});
  REQUIRE(recipe.code == 0);
  for (const char* key : {"learning_rate", "estimator", "batch_norm", "average_bits"}) {
    CHECK_THAT(recipe.out, ContainsSubstring(key));
  }
  CHECK_THAT(place.Bitplan({"--version"}).out, ContainsSubstring("bitplan "));
}
