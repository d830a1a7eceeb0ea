// `bitplan compare` of plans of weights and activations: at the bit operations of one pair of widths.
#include <nlohmann/json.hpp>
#include <set>

#include "cli/program.h"
#include "cli/report.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

using PairWords = std::vector<std::string>;

PairWords Asked(const Workplace& place, const std::string& compare, const PairWords& more = {}) {
  PairWords words = {"compare", place.recipe(),
                     "--out",   "out",
                     "--set",   compare,
                     "--set",   "allocate.activation_bits=[2, 4, 8]",
                     "--set",   "allocate.bits=[1, 2, 4, 8]"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

}  // namespace

TEST_CASE("compare at a pair of widths sets plans of weights and activations against that pair") {
  const Workplace place;
  const auto report =
      ReportOf(place, Asked(place, "compare={pairs: [W4A4, W2A4], calibration_seeds: 2, allocators: [exact, greedy]}"));
  std::set<std::string> files;
  for (const std::string pair : {"W4A4", "W2A4"}) {
    double of_pair = 0.0, of_uniform = 0.0, rise_of_uniform = 0.0;
    for (const auto& plan : report.at("plans")) {
      if (plan.at("budget") != pair || plan.at("allocator") != "uniform") continue;
      of_pair = plan.at("bops");
      of_uniform = plan.at("metrics").at("accuracy");
      rise_of_uniform = plan.at("common_loss_rise");
      for (const int bits : plan.at("bits")) CHECK(bits == (pair == "W4A4" ? 4 : 2));
      for (const int bits : plan.at("activation_bits")) CHECK(bits == 4);
    }
    REQUIRE(of_pair > 0.0);
    int rows = 0;
    for (const auto& plan : report.at("plans")) {
      if (plan.at("budget") != pair) continue;
      ++rows;
      CHECK(plan.at("bops").get<double>() <= of_pair);
      CHECK(plan.at("common_loss_rise").get<double>() <= rise_of_uniform);
      CHECK(plan.at("below_uniform").at("value").get<double>() ==
            Approx(of_uniform - plan.at("metrics").at("accuracy").get<double>()).margin(1e-9));
      REQUIRE(plan.at("seeds").size() == 2);
      for (const auto& seed : plan.at("seeds")) {
        CHECK(seed.at("bops").get<double>() <= of_pair);
        CHECK(seed.at("activation_bits").size() == seed.at("bits").size());
        CHECK(files.insert(seed.at("plan")).second);
      }
    }
    CHECK(rows == 3);
  }
  CHECK(files.contains("compare-plans/exact-W4A4.yaml"));
  CHECK(report.at("leads").at(0).at("budget") == "W4A4");
  CHECK(report.at("recommended").at("budgets").at(0).at("budget") == "W4A4");

  // Stopped and asked again it measures nothing twice, and says the same.
  const auto again =
      ReportOf(place, Asked(place, "compare={pairs: [W4A4, W2A4], calibration_seeds: 2, allocators: [exact, greedy]}"));
  CHECK(again.at("measured") == 0);
  CHECK(again.at("plans").at(0).at("metrics") == report.at("plans").at(0).at("metrics"));
  const auto csv = ReadText(place / "out/compare.csv"), html = ReadText(place / "out/report.html");
  CHECK_THAT(csv, ContainsSubstring("\nW4A4,exact,") && ContainsSubstring(",bops,activation_bits,note\n"));
  CHECK_THAT(csv, ContainsSubstring(",4 4 4,\""));  // the activations of uniform, before its note
  CHECK_THAT(html, ContainsSubstring("<h2>Budget W4A4</h2>") && ContainsSubstring("<th>bit operations</th>"));
  CHECK_THAT(ReadText(place / "out/plots/accuracy.dat"), ContainsSubstring("bit operations"));
}

TEST_CASE("the plan file of a row of pairs measures as the row does, with learned rounding too") {
  const Workplace place;
  const PairWords learned = {"--set", "quantizer.learned_steps=3"};
  const auto report =
      ReportOf(place, Asked(place, "compare={pairs: [W2A4], calibration_seeds: 2, allocators: [exact]}", learned));
  for (const auto& plan : report.at("plans")) {
    for (const auto& seed : plan.at("seeds")) {
      const auto verified = ReportOf(
          place, {"verify", place.recipe(), "--out", "out", "--plan", "out/" + seed.at("plan").get<std::string>()});
      CHECK(verified.at("verified").at("quantized").at("nll") ==
            Approx(seed.at("metrics").at("nll").get<double>()).epsilon(1e-5));
    }
  }
}

TEST_CASE("uniform keeps to pins and exclusions at a pair, and both sides spend what their plans say") {
  const Workplace place;
  const auto report = ReportOf(place, Asked(place, "compare={pairs: [W4A4], calibration_seeds: 1, allocators: [exact]}",
                                            {"--set", "allocate.pins={fc1: 8}", "allocate.exclude=[fc3]"}));
  REQUIRE(report.at("plans").size() == 2);
  double of_uniform = 0.0;
  for (const auto& plan : report.at("plans")) {
    INFO(plan.dump());
    REQUIRE(!plan.contains("failure"));
    CHECK(!plan.at("below_uniform").is_null());
    CHECK((plan.at("bits")[0] == 8 && plan.at("bits")[2] == 32));
    CHECK(plan.at("activation_bits")[2] == 32);  // what is left in float rounds nothing
    CHECK(plan.at("common_loss_rise").get<double>() ==
          Approx(plan.at("predicted_loss_rise").get<double>()).epsilon(1e-4));
    if (plan.at("allocator") == "uniform") {
      CHECK((plan.at("bits")[1] == 4 && plan.at("activation_bits")[0] == 4 && plan.at("activation_bits")[1] == 4));
      of_uniform = plan.at("bops");
    }
  }
  for (const auto& plan : report.at("plans")) CHECK(plan.at("bops").get<double>() <= of_uniform);
  // A limit that uniform breaks leaves it without a plan, and no gain is stated.
  const auto limited =
      ReportOf(place, Asked(place, "compare={pairs: [W8A4], calibration_seeds: 1, allocators: [exact]}",
                            {"--set", "allocate.budget.bytes=60000"}));
  for (const auto& plan : limited.at("plans")) {
    if (plan.at("allocator") == "uniform") {
      CHECK(plan.contains("failure"));
    } else {
      CHECK(plan.at("below_uniform").is_null());
    }
  }
}

TEST_CASE("a recurrent layer computes in float beside activations of several widths, and is priced so") {
  const Workplace place;
  torch::manual_seed(2);
  torch::jit::Module module("Net");
  module.register_parameter("w_ih", torch::randn({32, 28}) * 0.2, false);
  module.register_parameter("w_hh", torch::randn({32, 8}) * 0.2, false);
  module.register_parameter("b_ih", torch::zeros({32}), false);
  module.register_parameter("b_hh", torch::zeros({32}), false);
  module.register_parameter("fc", torch::randn({4, 8}), false);
  module.define(R"(
def forward(self, x):
    x = x.squeeze(1)
    zeros = torch.zeros([1, x.size(0), 8], dtype=x.dtype, device=x.device)
    h, _, _ = torch.lstm(x, [zeros, zeros], [self.w_ih, self.w_hh, self.b_ih, self.b_hh], True, 1, 0., False, False, True)
    return torch.linear(h[:, -1], self.fc)
)");
  module.save((place / "model.pt").string());
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
  const auto run = ReportOf(
      place, {"run", place.recipe(), "--out", "out", "--set",
              "allocate={allocator: exact, bits: [2, 4, 8], activation_bits: [2, 4, 8], budget: {bops: 4600000}}"});
  double bops = 0.0;
  for (const auto& layer : run.at("layers")) {
    const bool recurrent = layer.at("name") != "fc";
    if (recurrent) CHECK(layer.value("activation_bits", 32) == 32);
    bops += layer.at("macs").get<double>() * layer.at("bits").get<double>() * layer.value("activation_bits", 32.0);
  }
  CHECK(bops > 1e6);
  CHECK(bops <= 4600000.0);
}

TEST_CASE("pairs of widths that cannot be compared are refused in one line before anything is measured") {
  const Workplace place;
  const auto refused = [&](const std::string& compare, const PairWords& more, const std::string& word) {
    const auto outcome = place.Bitplan(Asked(place, compare, more));
    CHECK(outcome.code == 64);
    CHECK_THAT(ErrorLine(outcome), ContainsSubstring(word));
  };
  refused("compare={pairs: [W4A3]}", {}, "allocate.activation_bits has 2, 4, 8");
  refused("compare={pairs: [W3A4]}", {}, "allocate.bits has 1, 2, 4, 8");
  for (const char* name : {"4x4", "W4", "W9A4", "W4A1", "W4A4 ", "W-1A4", "A4W4", "W4A4A4"}) {
    refused(std::string("compare={pairs: ['") + name + "']}", {}, "compare.pairs");
  }
  refused("compare={pairs: [W4A4], allocators: [quantile-inform]}", {}, "quantile-inform does not choose pairs");
  refused("compare={pairs: [W4A4], allocators: [hawq]}", {}, "hawq does not choose pairs");
  refused("compare={pairs: [W4A4]}", {"--set", "allocate.activation_bits=[4]"}, "allocate.activation_bits");
  refused("compare={budgets: [3]}", {}, "compare.pairs");
}

TEST_CASE("what weights and activations cost is the same whether the weights were measured before or not") {
  const Workplace place;
  const auto rises = [&](const std::string& folder, const std::vector<std::string>& widths) {
    for (const auto& bits : widths) {
      (void)ReportOf(place, {"allocate", place.recipe(), "--out", folder, "--set", "allocate.allocator=exact", "--set",
                             "allocate.draws=0", "--set", "allocate.activation_bits=" + bits});
    }
    return nlohmann::json::parse(ReadText(place / (folder + "/activations.json")));
  };
  const auto at_once = rises("once", {"[2, 4, 8]"}), later = rises("later", {"[8]", "[2, 4, 8]"});
  REQUIRE(at_once.at("together").size() == at_once.at("tensors").size());
  CHECK(at_once == later);
}

TEST_CASE("layers of a group share both widths where activations are chosen too") {
  const Workplace place;
  const auto run = [&](const PairWords& more) {
    PairWords words = {
        "run",
        place.recipe(),
        "--out",
        "out",
        "--set",
        "allocate={allocator: exact, bits: [1, 2, 4, 8], activation_bits: [2, 4, 8], budget: {bops: 3000000}}"};
    words.insert(words.end(), more.begin(), more.end());
    return ReportOf(place, words);
  };
  const auto free = run({}), grouped = run({"--set", "allocate.groups=[[fc1, fc3]]"});
  const auto& layers = grouped.at("layers");
  CHECK(layers.at(0).at("bits") == layers.at(2).at("bits"));
  CHECK(layers.at(0).at("activation_bits") == layers.at(2).at("activation_bits"));
  const auto& apart = free.at("layers");
  CHECK((apart.at(0).at("bits") != apart.at(2).at("bits") ||
         apart.at(0).at("activation_bits") != apart.at(2).at("activation_bits")));
  CHECK(grouped.at("achieved").at("predicted_loss_rise") >= free.at("achieved").at("predicted_loss_rise"));
  const auto bops = [](const nlohmann::json& report) {
    double sum = 0.0;
    for (const auto& layer : report.at("layers")) {
      sum +=
          layer.at("macs").get<double>() * layer.at("bits").get<double>() * layer.at("activation_bits").get<double>();
    }
    return sum;
  };
  CHECK(bops(grouped) <= 3e6);
  CHECK(bops(free) <= 3e6);
}
