// What other calibration data change: `compare` over calibration seeds, and `sure`.
#include <csignal>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/program.h"
#include "cli/report.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

using Words = std::vector<std::string>;

Words CompareWords(const Workplace& place, const std::string& out, int seeds) {
  return {"compare",
          place.recipe(),
          "--out",
          out,
          "--json",
          "--set",
          "compare={budgets: [2, 3], seeds: 2, allocators: [exact, random]}",
          "compare.calibration_seeds=" + std::to_string(seeds)};
}

std::vector<std::string> RunStages(const nlohmann::json& report) {
  std::vector<std::string> names;
  for (const auto& stage : report.at("stages")) {
    if (!stage.at("reused").get<bool>()) names.push_back(stage.at("name"));
  }
  return names;
}

}  // namespace

TEST_CASE("compare over calibration seeds states means, spread and an interval, and trains once") {
  const Workplace place;
  const auto report = ReportOf(place, CompareWords(place, "out", 3));
  CHECK(report.at("calibration_seeds") == nlohmann::json({1, 2, 3}));
  const auto names = RunStages(report);
  CHECK(std::count(names.begin(), names.end(), "model") == 1);
  CHECK(std::count(names.begin(), names.end(), "sensitivity") == 3);
  REQUIRE(report.at("plans").size() == 6);  // two budgets; random has one row, each seed a plan of its own
  bool differ = false;
  for (const auto& plan : report.at("plans")) {
    REQUIRE(plan.at("seeds").size() == 3);
    double sum = 0.0, squares = 0.0;
    for (const auto& seed : plan.at("seeds")) {
      const double accuracy = seed.at("metrics").at("accuracy");
      sum += accuracy;
      squares += accuracy * accuracy;
      CHECK(std::filesystem::exists(place / ("out/" + seed.at("plan").get<std::string>())));
      // Not by the seed of an allocator: other posteriors, tables and roundings.
      if (plan.at("allocator") == "random") continue;
      differ = differ || seed.at("metrics") != plan.at("seeds")[0].at("metrics");
    }
    CHECK(plan.at("metrics").at("accuracy").get<double>() == Approx(sum / 3));
    const double variance = std::max(0.0, (squares - sum * sum / 3) / 2);
    CHECK(plan.at("accuracy_sd").get<double>() == Approx(std::sqrt(variance)).margin(1e-6));
    CHECK(plan.at("bits") == plan.at("seeds")[0].at("bits"));
    const auto& drop = plan.at("drop");
    CHECK(drop.at("value").get<double>() ==
          Approx(report.at("float").at("accuracy").get<double>() - sum / 3).margin(1e-9));
    CHECK((drop.contains("p") && !drop.contains("mcnemar_p")));
    CHECK(plan.at("tie_with_best") == (plan.at("below_best").at("ci95")[0].get<double>() <= 0.0));
  }
  CHECK(differ);
  // The first seed is what a comparison without repetition gives, which finds it done.
  const auto one = ReportOf(place, CompareWords(place, "out", 1));
  for (const auto& plan : one.at("plans")) {
    if (plan.at("allocator") == "random") continue;
    for (const auto& repeated : report.at("plans")) {
      if (repeated.at("allocator") != plan.at("allocator") || repeated.at("budget") != plan.at("budget")) continue;
      CHECK(repeated.at("seeds")[0].at("metrics") == plan.at("metrics"));
    }
    CHECK(plan.at("drop").contains("mcnemar_p"));
  }
  CHECK(RunStages(one).empty());
  const auto said = place.Bitplan({"compare", place.recipe(), "--out", "out", "--set",
                                   "compare={budgets: [2, 3], allocators: [exact, random], calibration_seeds: 3}"});
  CHECK_THAT(said.out, ContainsSubstring("  accuracy    sd  ") && ContainsSubstring("means of 3 calibration seeds"));
  CHECK_THAT(ReadText(place / "out/report.html"), ContainsSubstring(", 3 seeds</small>"));
  CHECK_THAT(ReadText(place / "out/compare.csv"), ContainsSubstring(",calibration_seeds,accuracy_sd,"));
}

TEST_CASE("a small network is compared with five calibration seeds unless the recipe says otherwise") {
  const Workplace place;
  const auto report = ReportOf(place, {"compare", place.recipe(), "--out", "out", "--json", "--set",
                                       "compare={budgets: [2], allocators: [exact]}"});
  CHECK(report.at("calibration_seeds").size() == 5);
}

TEST_CASE("a compare that is stopped continues with the seeds that are not finished, to the same figures") {
  const Workplace place;
  const auto whole = ReportOf(place, CompareWords(place, "whole", 3));
  const auto stopped = place.BitplanStopped(CompareWords(place, "out", 3), SIGTERM, [&] {
    return std::filesystem::exists(place / "out/calibration-seeds/2/sensitivity.json");
  });
  CHECK(stopped.code == 130);
  const auto continued = ReportOf(place, CompareWords(place, "out", 3));
  CHECK(continued.at("measured").get<int>() > 0);
  CHECK(continued.at("measured").get<int>() < whole.at("measured").get<int>());
  const auto names = RunStages(continued);
  CHECK(std::count(names.begin(), names.end(), "model") == 0);
  CHECK(std::count(names.begin(), names.end(), "posterior") <= 1);
  REQUIRE(continued.at("plans").size() == whole.at("plans").size());
  for (std::size_t i = 0; i < whole.at("plans").size(); ++i) {
    for (const char* key : {"metrics", "drop", "below_best", "bits"}) {
      CHECK(continued.at("plans")[i].at(key) == whole.at("plans")[i].at(key));
    }
  }
}

TEST_CASE("the plan of another calibration seed says so, and measures as it did") {
  const Workplace place;
  const auto report = ReportOf(place, CompareWords(place, "out", 2));
  for (const auto& plan : report.at("plans")) {
    if (plan.at("budget") != 2.0) continue;
    const auto file = "out/" + plan.at("seeds")[1].at("plan").get<std::string>();
    const auto before = ReadText(place / file);
    CHECK_THAT(before, ContainsSubstring("source: split-off, seed: 2}"));
    const auto outcome =
        place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", file, "--out-plan", "again.yaml"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    const auto after = ReadText(place / "again.yaml");
    CHECK(after.substr(after.find("verified:"), after.find("provenance:") - after.find("verified:")) ==
          before.substr(before.find("verified:"), before.find("provenance:") - before.find("verified:")));
    CHECK_THAT(after, ContainsSubstring("source: split-off, seed: 2}"));
  }
}

TEST_CASE("a run with a calibration seed keeps the network and takes other training images") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto plan = ReadText(place / "out/plan.yaml"), table = ReadText(place / "out/sensitivity.json");
  const auto other = ReportOf(place, {"run", place.recipe(), "--out", "out", "--json", "--set", "calibration_seed=2"});
  const auto names = RunStages(other);
  CHECK(std::count(names.begin(), names.end(), "model") == 0);
  CHECK(std::count(names.begin(), names.end(), "posterior") == 1);
  CHECK(ReadText(place / "out/sensitivity.json") == table);
  CHECK(ReadText(place / "out/calibration-seeds/2/sensitivity.json") != table);
  CHECK_THAT(ReadText(place / "out/plan.yaml"), ContainsSubstring("seed: 2}"));
  // Back again: nothing is run.
  CHECK(RunStages(ReportOf(place, {"run", place.recipe(), "--out", "out", "--json"})).empty());
  CHECK(ReadText(place / "out/plan.yaml") == plan);
  CHECK(RunStages(ReportOf(place, {"run", place.recipe(), "--out", "out", "--json", "--set", "calibration_seed=1"}))
            .empty());
}

TEST_CASE("calibration images of a model from a file change with the calibration seed, the test images do not") {
  const Workplace place;
  REQUIRE(place.Bitplan({"train", place.recipe(), "--out", "trained"}).code == 0);
  std::filesystem::copy_file(place / "trained/model.pt", place / "model.pt");
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
  auto words = CompareWords(place, "out", 2);
  // So `uniform` is the same network with both seeds.
  words.insert(words.end(), {"data.calibration=150", "quantizer.rounding=nearest", "quantizer.range=mse",
                             "quantizer.output_correction=off"});
  const auto report = ReportOf(place, words);
  for (const auto& plan : report.at("plans")) {
    if (plan.at("allocator") != "uniform") continue;
    CHECK(plan.at("seeds")[0].at("metrics") == plan.at("seeds")[1].at("metrics"));
    CHECK(plan.at("seeds")[0].at("choice") != plan.at("seeds")[1].at("choice"));
  }
  CHECK_THAT(ReadText(place / "out" / std::filesystem::path(report.at("plans")[0].at("seeds")[1].at("plan"))),
             ContainsSubstring("source: training, seed: 2}"));
  // The float network is measured on the same test images with every seed.
  for (const auto& plan : report.at("plans")) {
    const auto one = ReadText(place / "out" / std::filesystem::path(plan.at("seeds")[0].at("plan")));
    const auto two = ReadText(place / "out" / std::filesystem::path(plan.at("seeds")[1].at("plan")));
    const auto of_float = [](const std::string& text) {
      const auto begin = text.find("  float:");
      return text.substr(begin, text.find('\n', begin) - begin);
    };
    CHECK(of_float(one) == of_float(two));
  }
}

TEST_CASE("sure holds the widths of every calibration seed against those of all others") {
  const Workplace place;
  const Words words = {"sure",
                       place.recipe(),
                       "--out",
                       "out",
                       "--repeats",
                       "3",
                       "--set",
                       "compare.budgets=[1.5, 2, 3]",
                       "allocate.allocator=exact"};
  auto json = words;
  json.push_back("--json");
  const auto report = ReportOf(place, json);
  CHECK(report.at("calibration_seeds") == nlohmann::json({1, 2, 3, 4}));
  REQUIRE(report.at("answers").size() == 12);
  const auto layers = report.at("layers").size();
  CHECK(layers == 3);
  double stated = 0.0, returned = 0.0;
  for (const auto& answer : report.at("answers")) {
    for (std::size_t l = 0; l < layers; ++l) {
      stated += answer.at("confidence")[l].get<double>() / static_cast<double>(12 * layers);
      for (const auto& other : report.at("answers")) {
        if (other.at("budget") != answer.at("budget") || other == answer) continue;
        returned += other.at("bits")[l] == answer.at("bits")[l] ? 1.0 / static_cast<double>(36 * layers) : 0.0;
      }
    }
  }
  CHECK(report.at("all").at("widths") == 12 * layers);
  CHECK(report.at("all").at("stated").get<double>() == Approx(stated));
  CHECK(report.at("all").at("returned").get<double>() == Approx(returned));
  std::size_t in_bins = 0;
  for (const auto& bin : report.at("bins")) {
    in_bins += bin.at("widths").get<std::size_t>();
    CHECK(bin.at("stated").get<double>() >= bin.at("low").get<double>());
    CHECK(bin.at("stated").get<double>() <= bin.at("high").get<double>());
  }
  CHECK(in_bins == 12 * layers);
  const auto said = place.Bitplan(words);
  CHECK(said.code == 0);
  CHECK_THAT(said.out, ContainsSubstring("returned") && ContainsSubstring("calibration seeds  1 to 4"));
}

TEST_CASE("sure counts layers that have a choice, and refuses an allocator that states nothing") {
  const Workplace place;
  const Words words = {"sure",  place.recipe(),       "--out", "out", "--repeats", "2", "--json",
                       "--set", "compare.budgets=[3]"};
  auto pinned = words;
  pinned.insert(pinned.end(), {"allocate.allocator=exact", "allocate.pins={fc1: 3}"});
  const auto report = ReportOf(place, pinned);
  CHECK(report.at("layers").size() == 2);
  CHECK(report.at("all").at("widths") == 6);
  auto silent = words;
  silent.insert(silent.end(), {"allocate.allocator=bayes-bits-from-variance", "allocate.draws=0"});
  const auto refused = place.Bitplan(silent);
  CHECK(refused.code == 64);
  CHECK_THAT(ErrorLine(refused), ContainsSubstring("allocate.draws"));
  auto none = words;
  none.back() = "compare.budgets=[]";
  CHECK_THAT(ErrorLine(place.Bitplan(none)), ContainsSubstring("compare.budgets is empty"));
  CHECK(place.Bitplan({"sure", place.recipe(), "--repeats", "1"}).code == 64);
}
