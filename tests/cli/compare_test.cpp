// What `bitplan compare` promises: every plan on the same samples, in tables that programs and people can read.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "bitplan/core/counted.h"
#include "cli/program.h"
#include "cli/report.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

nlohmann::json Compared(const Workplace& place, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {
      "compare",
      place.recipe(),
      "--out",
      "out",
      "--json",
      "--set",
      "compare={budgets: [2, 3], seeds: 2, calibration_seeds: 1, allocators: [exact, random]}"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return ReportOf(place, std::move(arguments));
}

const nlohmann::json& PlansOf(const nlohmann::json& report) {
  return report.contains("comparison") ? report.at("comparison").at("plans") : report.at("plans");
}

}  // namespace

TEST_CASE("compare measures every allocator at every budget, against uniform and against the best") {
  const Workplace place;
  const auto report = Compared(place);
  const auto& plans = PlansOf(report);
  std::map<std::string, int> count;
  for (const auto& plan : plans) {
    ++count[plan.at("allocator")];
    CHECK(plan.at("average_bits").get<double>() <= plan.at("budget").get<double>());
  }
  CHECK(count == std::map<std::string, int>{{"exact", 2}, {"random", 4}, {"uniform", 2}});
  for (const double budget : {2.0, 3.0}) {
    double best = 0.0;
    for (const auto& plan : plans) {
      if (plan.at("budget") == budget) best = std::max(best, plan.at("metrics").at("accuracy").get<double>());
    }
    double uniform = 0.0;
    for (const auto& plan : plans) {
      if (plan.at("budget") != budget) continue;
      const double accuracy = plan.at("metrics").at("accuracy");
      if (plan.at("allocator") == "uniform") uniform = accuracy;
      CHECK(plan.at("below_best").at("value").get<double>() == Approx(best - accuracy).margin(1e-9));
    }
    for (const auto& plan : plans) {
      if (plan.at("budget") != budget) continue;
      CHECK(plan.at("below_uniform").at("value").get<double>() ==
            Approx(uniform - plan.at("metrics").at("accuracy").get<double>()).margin(1e-9));
    }
    double ours = 0.0, theirs = 0.0;
    for (const auto& plan : plans) {
      if (plan.at("budget") != budget) continue;
      double& side = plan.at("baseline").get<bool>() ? theirs : ours;
      side = std::max(side, plan.at("metrics").at("accuracy").get<double>());
    }
    const auto& lead = report.at("leads").at(budget == 2.0 ? 0 : 1);
    CHECK((lead.at("budget") == budget && lead.at("ours") == "exact"));
    CHECK(lead.at("lead").get<double>() == Approx(ours - theirs).margin(1e-9));
    CHECK((lead.at("p").get<double>() > 0.0 && lead.at("p").get<double>() <= 1.0));
  }
}

TEST_CASE("compare leaves a CSV, a JSON, a self-contained report and the data of its plots") {
  const Workplace place;
  const auto plans = PlansOf(Compared(place));
  const auto csv = ReadText(place / "out/compare.csv");
  CHECK(static_cast<std::size_t>(std::count(csv.begin(), csv.end(), '\n')) == plans.size() + 1);
  CHECK(nlohmann::json::parse(ReadText(place / "out/compare.json")).at("plans").size() == plans.size());
  const auto html = ReadText(place / "out/report.html");
  CHECK_THAT(html, ContainsSubstring("</html>") && ContainsSubstring("random"));
  for (const char* outside : {"src=\"http", "href=\"http", "<script src", "@import"})
    CHECK(html.find(outside) == std::string::npos);
  for (const char* name : {"accuracy", "nll", "bits"}) {
    CHECK(std::filesystem::exists(place / ("out/plots/" + std::string(name) + ".dat")));
    CHECK(std::filesystem::exists(place / ("out/plots/" + std::string(name) + ".gp")));
  }
}

TEST_CASE("compare says at the terminal what the whole network takes, beside the planned layers") {
  const Workplace place;
  const auto plan = PlansOf(Compared(place)).at(0);
  CHECK(plan.at("network_bytes").get<std::int64_t>() > plan.at("stored_bytes").get<std::int64_t>());
  const auto outcome =
      place.Bitplan({"compare", place.recipe(), "--out", "out", "--set",
                     "compare={budgets: [2, 3], seeds: 2, calibration_seeds: 1, allocators: [exact, random]}"});
  REQUIRE(outcome.code == 0);
  CHECK_THAT(outcome.out, ContainsSubstring("  bytes  whole network  "));
  CHECK_THAT(outcome.out, ContainsSubstring(bitplan::Grouped(plan.at("network_bytes").get<std::int64_t>())));
}

TEST_CASE("a second compare measures nothing again, and a run beside it stays what it was") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  const auto first = Compared(place);
  const auto second = Compared(place);
  CHECK(first.at("measured").get<int>() > 0);
  CHECK(second.at("measured") == 0);
  CHECK(PlansOf(first).size() == PlansOf(second).size());
  CHECK(PlansOf(first)[0].at("metrics") == PlansOf(second)[0].at("metrics"));
  CHECK(ReadText(place / "out/plan.yaml") == plan);
}

TEST_CASE("an allocator that cannot meet a budget says why, and the others are compared") {
  const Workplace place;
  const auto report = Compared(place, {"--set", "compare.budgets=[1.5, 4]", "--set", "allocate.bits=[2, 4]"});
  int failed = 0;
  for (const auto& plan : PlansOf(report)) {
    if (plan.at("budget") != 1.5) continue;
    ++failed;
    CHECK_THAT(plan.at("failure").get<std::string>(), ContainsSubstring("2"));
  }
  CHECK(failed == 4);
}

TEST_CASE("when no budget can be met, or none is given, one line says so and an earlier comparison stays") {
  const Workplace place;
  (void)Compared(place);
  const auto before = ReadText(place / "out/compare.csv");
  const auto run = [&](const char* budgets) {
    return place.Bitplan({"compare", place.recipe(), "--out", "out", "--set",
                          "compare={calibration_seeds: 1, allocators: [exact, random]}", "--set", budgets, "--set",
                          "allocate.bits=[2, 4]"});
  };
  const auto infeasible = run("compare.budgets=[1.5]");
  CHECK(infeasible.code == 75);
  CHECK_THAT(infeasible.err, ContainsSubstring("compare.budgets") && ContainsSubstring("1.5"));
  const auto empty = run("compare.budgets=[]");
  CHECK(empty.code == 64);
  CHECK_THAT(empty.err, ContainsSubstring("compare.budgets"));
  CHECK(ReadText(place / "out/compare.csv") == before);
  CHECK(std::filesystem::exists(place / "out/plots/accuracy.gp"));
}

TEST_CASE("compare --sensitivity ranks metrics by random plans") {
  const Workplace place;
  const auto outcome = place.Bitplan({"compare", place.recipe(), "--out", "out", "--json", "--sensitivity", "--metrics",
                                      "posterior-laplace,measured,hawq", "--plans", "12"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const auto report = nlohmann::json::parse(outcome.out);
  std::set<std::string> names;
  for (const auto& row : report.at("metrics")) {
    names.insert(row.at("metric"));
    CHECK(row.at("spearman_divergence").get<double>() <= 1.0);
    if (row.at("metric") == "measured") CHECK(row.at("spearman_divergence").get<double>() > 0.5);
  }
  CHECK(names == std::set<std::string>{"posterior-laplace", "measured", "hawq"});
}

TEST_CASE("compare --sensitivity draws widths of activations too where the recipe has several, and says so") {
  const Workplace place;
  const std::vector<std::string> asked = {"compare",
                                          place.recipe(),
                                          "--out",
                                          "out",
                                          "--set",
                                          "allocate.activation_bits=[3, 8]",
                                          "--sensitivity",
                                          "--metrics",
                                          "measured",
                                          "--plans",
                                          "6",
                                          "--images",
                                          "100"};
  auto with_json = asked;
  with_json.emplace_back("--json");
  const auto outcome = place.Bitplan(with_json);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const auto report = nlohmann::json::parse(outcome.out);
  REQUIRE(report.at("activation_bits").size() == 6);
  for (const auto& bits : report.at("activation_bits")) {
    CHECK(bits.size() == report.at("bits").at(0).size());
    for (const int width : bits) CHECK((width == 3 || width == 8));
  }
  CHECK_THAT(place.Bitplan(asked).out, ContainsSubstring("6 random plans of weights and activations"));
}

TEST_CASE("compare --sensitivity --near ranks metrics by deployed plans of one size") {
  const Workplace place;
  const auto outcome = place.Bitplan({"compare", place.recipe(), "--out", "out", "--json", "--sensitivity", "--metrics",
                                      "posterior-laplace,compensated", "--near", "1,3,4", "--plans", "5"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const auto report = nlohmann::json::parse(outcome.out);
  const auto plan = nlohmann::json::parse(place.Bitplan({"inspect", "lenet-300-100", "--json"}).out);
  std::vector<double> weights;
  for (const auto& layer : plan.at("layers")) weights.push_back(layer.at("weights"));
  REQUIRE(report.at("near").size() == 3);
  for (const auto& near : report.at("near")) {
    const double budget = near.at("average_bits");
    const auto plans = near.at("bits").get<std::set<std::vector<int>>>();
    CHECK(plans.size() == near.at("loss_rise").size());  // no plan counts twice
    CHECK(plans.size() >= 3);
    for (const auto& bits : plans) {
      REQUIRE(bits.size() == weights.size());
      const double spent = std::inner_product(bits.begin(), bits.end(), weights.begin(), 0.0);
      const double average = spent / std::accumulate(weights.begin(), weights.end(), 0.0);
      CHECK(std::abs(average - budget) <= 0.05 * budget);
    }
    CHECK(near.at("metrics").size() == 2);
  }
  // Layers that stay in float count neither in the size nor in the prediction.
  const auto without = place.Bitplan({"compare", place.recipe(), "--out", "out", "--json", "--sensitivity", "--metrics",
                                      "posterior-laplace,predictive", "--near", "2,3", "--plans", "3", "--set",
                                      "allocate.exclude=[fc1]"});
  INFO(without.err);
  REQUIRE(without.code == 0);
  for (const auto& near : nlohmann::json::parse(without.out).at("near")) {
    for (const auto& bits : near.at("bits")) CHECK(bits[0] == 32);
    for (const auto& metric : near.at("metrics")) {
      for (const auto& predicted : metric.at("predicted")) CHECK(predicted.get<double>() >= 0.0);
    }
  }
  const auto none = place.Bitplan({"compare", place.recipe(), "--out", "out", "--sensitivity", "--metrics",
                                   "posterior-laplace", "--near", "4", "--set", "allocate.bits=[4]"});
  CHECK(none.code == 75);
  CHECK_THAT(ErrorLine(none), ContainsSubstring("--near"));
}

TEST_CASE("options of --sensitivity without it, and metrics that are not known, are refused") {
  const Workplace place;
  CHECK(place.Bitplan({"compare", place.recipe(), "--plans", "5"}).code == 64);
  const auto outcome = place.Bitplan({"compare", place.recipe(), "--sensitivity", "--metrics", "hawk"});
  CHECK(outcome.code == 64);
  CHECK_THAT(ErrorLine(outcome), ContainsSubstring("hawq"));
}

TEST_CASE("compare recommends a plan at every budget, chosen on other images than it is measured on") {
  const Workplace place;
  const auto report = Compared(place);
  const auto& recommended = report.at("recommended");
  CHECK(recommended.at("apart") == true);
  CHECK_THAT(recommended.at("data").get<std::string>(), ContainsSubstring("/calibration"));
  CHECK_THAT(report.at("data").get<std::string>(), ContainsSubstring("/test"));
  CHECK_THAT(recommended.at("caveat").get<std::string>(), ContainsSubstring("has not seen"));
  std::vector<double> budgets;
  for (const auto& pick : recommended.at("budgets")) {
    budgets.push_back(pick.at("budget"));
    CHECK(pick.at("allocator") != "random");  // chance is nobody's choice
    CHECK(std::filesystem::exists(place / ("out/" + pick.at("plan").get<std::string>())));
  }
  CHECK(budgets == std::vector<double>{2.0, 3.0});
  const auto csv = ReadText(place / "out/compare.csv"), html = ReadText(place / "out/report.html");
  const auto columns = [&](std::size_t line) {
    std::size_t begin = 0;
    for (std::size_t i = 0; i < line; ++i) begin = csv.find('\n', begin) + 1;
    const auto text = csv.substr(begin, csv.find('\n', begin) - begin);
    bool quoted = false;
    int count = 1;
    for (const char c : text) {
      if (c == '"') quoted = !quoted;
      if (c == ',' && !quoted) ++count;
    }
    return count;
  };
  CHECK(columns(1) == columns(0));
  CHECK_THAT(html,
             ContainsSubstring("<h2>Recommended</h2>") && ContainsSubstring("href=\"compare-plans/uniform-2.yaml\""));
  CHECK(std::filesystem::exists(place / "out/plots/accuracy-bytes.dat"));

  // The table on the terminal says the same.
  const auto said =
      place.Bitplan({"compare", place.recipe(), "--out", "out", "--set",
                     "compare={budgets: [2, 3], seeds: 2, calibration_seeds: 1, allocators: [exact, random]}"});
  CHECK_THAT(said.out, ContainsSubstring("recommended        2 bits: ") && ContainsSubstring("over all: "));
}

TEST_CASE("a comparison on the images that choose says that its drops are too favourable") {
  const Workplace place;
  const auto report = Compared(place, {"--set", "verify.split=calibration"});
  CHECK(report.at("recommended").at("apart") == false);
  CHECK_THAT(report.at("recommended").at("caveat").get<std::string>(), ContainsSubstring("too favourable"));
}

TEST_CASE("that a model from a file may know the images that choose is said of training images only") {
  const Workplace place;
  REQUIRE(place.Bitplan({"train", place.recipe(), "--out", "trained"}).code == 0);
  std::filesystem::copy_file(place / "trained/model.pt", place / "model.pt");
  const auto caveat = [&](std::vector<std::string> more) {
    return Compared(place, std::move(more)).at("recommended").at("caveat").get<std::string>();
  };
  const auto known = ContainsSubstring("The model came from a file");
  CHECK_THAT(caveat({}), !known);
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
  CHECK_THAT(caveat({}), known);
  const auto of_test = caveat({"--set", "data.calibration_from=test"});
  CHECK_THAT(of_test, !known && ContainsSubstring("has not seen"));
  for (const char* part : {"images", "labels"}) {
    std::filesystem::copy_file(place / fmt::format("test-{}.npy", part), place / fmt::format("own-{}.npy", part));
  }
  CHECK_THAT(
      caveat({"--set", "data.calibration_images=own-images.npy", "--set", "data.calibration_labels=own-labels.npy"}),
      !known);
}

TEST_CASE("the plan file of every row measures as the row does") {
  const Workplace place;
  const auto report = Compared(place);
  std::set<std::string> files;
  for (const auto& plan : PlansOf(report)) CHECK(files.insert(plan.at("plan")).second);
  for (const auto& plan : PlansOf(report)) {
    if (plan.at("budget") != 2.0) continue;
    const auto file = "out/" + plan.at("plan").get<std::string>();
    const auto before = ReadText(place / file);
    INFO(file << "\n" << before);
    const auto outcome =
        place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", file, "--out-plan", "again.yaml", "--json"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    const auto after = ReadText(place / "again.yaml");
    CHECK(after.substr(after.find("verified:"), after.find("provenance:") - after.find("verified:")) ==
          before.substr(before.find("verified:"), before.find("provenance:") - before.find("verified:")));
  }
}
