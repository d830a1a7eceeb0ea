// `bitplan bayes` on a little data set: what it writes, what it keeps, what it refuses.
#include <cmath>
#include <csignal>
#include <nlohmann/json.hpp>

#include "cli/bayes_report.h"
#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

constexpr const char* kBayes =
    "bayes: {epochs: 2, batch: 50, seeds: 2, draws: 4, schemes: [vpq, spq, jq], bits: [4], fine_tune_epochs: 1,\n"
    "        sigma_scales: [log, linear], plan: {average_bits: 3.5}}\nseed: 1\n";

int RowReused(const nlohmann::json& report) {
  int reused = 0;
  for (const auto& stage : report.at("stages")) reused += stage.at("reused").get<bool>() ? 1 : 0;
  return reused;
}

}  // namespace

TEST_CASE("bayes trains, quantizes and measures every scheme, and keeps what it has") {
  const Workplace place;
  place.EditRecipe("seed: 1\n", kBayes);
  place.EditRecipe("allocator: quantile-inform", "allocator: exact");
  const auto report = BayesReport(place);
  // float, its control, three schemes trained and fine-tuned, vpq with a linear grid, the plan
  REQUIRE(report.at("rows").size() == 2 + 6 + 1 + 1);
  const auto& joint = RowOf(report, "jq-4-fine-tuned");
  REQUIRE(joint.at("seeds").size() == 2);
  for (const auto& seed : joint.at("seeds")) {
    const auto file = place / "out" / ("seed-" + std::to_string(seed.at("seed").get<int>())) / "jq-4-fine-tuned.packed";
    CHECK(seed.at("stored_bytes").get<std::uint64_t>() == std::filesystem::file_size(file));
    CHECK(seed.at("float_bytes").get<double>() / seed.at("stored_bytes").get<double>() > 7.0);
    const auto& clean = seed.at("splits").at("clean");
    CHECK(clean.at("total").get<double>() ==
          Approx(clean.at("aleatoric").get<double>() + clean.at("epistemic").get<double>()).epsilon(1e-4));
    for (const auto& layer : seed.at("widths")) {
      CHECK((layer.at("mean") == 4 && layer.at("sigma") == 4 && layer.at("sample") == 4));
    }
  }
  CHECK(RowOf(report, "spq-4-trained").at("seeds")[0].at("widths")[0].at("mean").is_null());
  // The plan spends its budget on means and standard deviations together.
  double bits = 0.0, weights = 0.0;
  const std::vector<double> sizes = {784 * 300, 300 * 100, 100 * 10};
  const auto& widths = RowOf(report, "plan-3.5").at("seeds")[0].at("widths");
  for (std::size_t l = 0; l < sizes.size(); ++l) {
    bits += sizes[l] * (widths[l].at("mean").get<double>() + widths[l].at("sigma").get<double>());
    weights += 2.0 * sizes[l];
  }
  CHECK(bits / weights <= 3.5);
  CHECK(bits / weights > 2.5);
  for (const char* name :
       {"bayes.json", "bayes.csv", "bayes-changes.csv", "report.html", "plots/fidelity.gp", "plots/epistemic.dat"}) {
    CHECK(std::filesystem::file_size(place / "out" / name) > 100);
  }
  CHECK(RowReused(report) == 0);

  const auto again = BayesReport(place);
  CHECK(RowReused(again) == static_cast<int>(again.at("stages").size()));
  CHECK(again.at("rows") == report.at("rows"));
  // Another width runs its own rows, each a network and its measurement, and nothing else.
  const auto wider = BayesReport(place, {"--set", "bayes.bits=[4, 8]"});
  CHECK(wider.at("stages").size() - static_cast<std::size_t>(RowReused(wider)) == 2 * 2 * 7);
  // More draws measure again and train nothing.
  const auto finer = BayesReport(place, {"--set", "bayes.draws=6"});
  CHECK(finer.at("stages").size() - static_cast<std::size_t>(RowReused(finer)) == 2 * 10);
}

TEST_CASE("a plan that breaks its cap gets more bits than its budget") {
  const Workplace place;
  place.EditRecipe("seed: 1\n", kBayes);
  place.EditRecipe("allocator: quantile-inform", "allocator: exact");
  const std::vector<std::string> one = {"bayes", place.recipe(),
                                        "--out", "out",
                                        "--set", "bayes.seeds=1",
                                        "--set", "bayes.schemes=[vpq]",
                                        "--set", "bayes.stages=[trained]",
                                        "--set", "bayes.sigma_scales=[log]",
                                        "--set", "bayes.plan.average_bits=1",
                                        "--json"};
  const auto bits = [](const nlohmann::json& report) {
    double sum = 0.0;
    for (const auto& layer : RowOf(report, "plan-1").at("seeds")[0].at("widths")) {
      sum += layer.at("mean").get<double>() + layer.at("sigma").get<double>();
    }
    return sum;
  };
  const auto free = place.Bitplan(one);
  REQUIRE(free.code == 0);
  auto capped = one;
  capped.insert(capped.end(), {"--set", "bayes.plan.accuracy_drop=0.02", "--set", "bayes.plan.drift=0.2"});
  const auto outcome = place.Bitplan(capped);
  REQUIRE(outcome.code == 0);
  CHECK_THAT(outcome.err, ContainsSubstring("at 1 bit; the budget rises"));
  CHECK(bits(nlohmann::json::parse(outcome.out)) > bits(nlohmann::json::parse(free.out)) + 3.0);
}

TEST_CASE("bayes states what fine-tuning alone does, and how far seeds differ") {
  const Workplace place;
  place.EditRecipe("seed: 1\n", kBayes);
  const std::vector<std::string> settings = {
      "--set", "bayes.schemes=[jq]",        "--set", "bayes.stages=[fine-tuned, scratch]",
      "--set", "bayes.plan.average_bits=0", "--set", "bayes.epochs=12",
      "--set", "bayes.prior_sigma=1"};
  const auto report = BayesReport(place, settings);
  CHECK(report.at("control") == "float-fine-tuned");
  const auto& control = RowOf(report, "float-fine-tuned");
  const auto& tuned = RowOf(report, "jq-4-fine-tuned");
  CHECK_FALSE(control.contains("against_control"));
  CHECK_FALSE(RowOf(report, "float").contains("against_control"));
  // The control is as large as the float network, learned, and is not rounded.
  for (const auto& seed : control.at("seeds")) {
    CHECK(seed.at("stored_bytes") == seed.at("float_bytes"));
    for (const auto& layer : seed.at("widths")) CHECK((layer.at("mean").is_null() && layer.at("sample").is_null()));
  }
  CHECK(ReadText(place / "out/seed-1/float-fine-tuned.packed") != ReadText(place / "out/seed-1/float.packed"));
  CHECK(std::abs(control.at("aleatoric_drift").at("clean").at("value").get<double>()) > 1e-3);
  // What a row lost against float is what it lost against the control and what the control lost.
  for (std::size_t s = 0; s < 2; ++s) {
    const auto drop = [&](const nlohmann::json& of) {
      return of.at("accuracy_drop").at("all").at("seeds").at(s).get<double>();
    };
    CHECK(drop(tuned) == Approx(drop(tuned.at("against_control")) + drop(control)).margin(1e-6));
    // A change of a mean multiplies.
    const auto ratio = [&](const nlohmann::json& of) {
      return 1.0 + of.at("epistemic_drift").at("clean").at("seeds").at(s).get<double>();
    };
    CHECK(ratio(tuned) == Approx(ratio(tuned.at("against_control")) * ratio(control)));
  }
  // Two seeds: half an interval is 12.706 standard errors.
  const auto& drift = tuned.at("aleatoric_drift").at("clean");
  const double first = drift.at("seeds").at(0).get<double>(), second = drift.at("seeds").at(1).get<double>();
  CHECK(drift.at("value").get<double>() == Approx((first + second) / 2.0));
  CHECK(drift.at("seeds_ci95").at(1).get<double>() - drift.at("value").get<double>() ==
        Approx(12.7062 * std::abs(first - second) / 2.0).epsilon(1e-4));
  // Rounded from the first step on: measured as the others are, and better than chance among four classes.
  const auto& scratch = RowOf(report, "jq-4-scratch");
  for (const auto& seed : scratch.at("seeds")) {
    CHECK(seed.at("splits").at("clean").at("accuracy").get<double>() > 0.8);
    CHECK(seed.at("widths").at(0).at("mean") == 4);
  }
  CHECK(scratch.at("against_control").at("accuracy_drop").at("all").at("seeds").size() == 2);
  CHECK_THAT(ReadText(place / "out/bayes-changes.csv"),
             ContainsSubstring("jq-4-scratch,float-fine-tuned,epistemic_drift,clean,"));
  CHECK_THAT(ReadText(place / "out/report.html"),
             ContainsSubstring("Changes against float-fine-tuned, over the seeds"));

  auto one = settings;
  one.insert(one.end(), {"--set", "bayes.seeds=1"});
  const auto alone = BayesReport(place, one);
  CHECK(RowOf(alone, "jq-4-fine-tuned").at("accuracy_drop").at("all").at("seeds_ci95").is_null());
  CHECK(RowReused(alone) == static_cast<int>(alone.at("stages").size()));
  std::vector<std::string> words = {"bayes", place.recipe(), "--out", "out"};
  words.insert(words.end(), one.begin(), one.end());
  CHECK_THAT(place.Bitplan(words).out, ContainsSubstring("one: there is no interval over seeds"));

  auto without = settings;
  without.insert(without.end(), {"--set", "bayes.control=false"});
  const auto uncontrolled = BayesReport(place, without);
  CHECK(uncontrolled.at("control").is_null());
  CHECK(uncontrolled.at("rows").size() == report.at("rows").size() - 1);
}

TEST_CASE("every data set of unknown inputs is measured by itself, and one may stand alone") {
  const Workplace place;
  place.EditRecipe("seed: 1\n",
                   "bayes: {epochs: 2, batch: 50, seeds: 1, draws: 4, schemes: [vpq], bits: [4], stages: [trained]}\n"
                   "seed: 1\n");
  const auto both = BayesReport(place, {"--set", "bayes.out_of_distribution=[synthetic-letters, synthetic-digits]"});
  CHECK(both.at("data").at("out-of-distribution") == "synthetic-letters");
  CHECK(both.at("data").at("out-of-distribution-2") == "synthetic-digits");
  CHECK(both.at("images").at("out-of-distribution") == 9600);
  CHECK(both.at("images").at("out-of-distribution-2") == 4000);
  const auto& seed = RowOf(both, "vpq-4-trained").at("seeds")[0];
  CHECK(seed.at("auroc").size() == 2);
  CHECK(seed.at("auroc").at("out-of-distribution") != seed.at("auroc").at("out-of-distribution-2"));
  CHECK(RowOf(both, "vpq-4-trained").at("epistemic_drift").size() == 3);
  const auto alone = BayesReport(place, {"--set", "bayes.out_of_distribution=synthetic-digits"});
  CHECK(alone.at("data").at("out-of-distribution") == "synthetic-digits");
  const auto& same = RowOf(alone, "vpq-4-trained").at("seeds")[0];
  CHECK(same.at("auroc").at("out-of-distribution") == seed.at("auroc").at("out-of-distribution-2"));
  const auto twice = place.Bitplan({"bayes", place.recipe(), "--out", "out", "--set",
                                    "bayes.out_of_distribution=[synthetic-digits, synthetic-digits]"});
  CHECK(twice.code == 64);
  CHECK_THAT(ErrorLine(twice), ContainsSubstring("bayes.out_of_distribution holds synthetic-digits twice"));
}

TEST_CASE("a killed bayes run continues and ends with the same bytes") {
  const Workplace place;
  place.EditRecipe("seed: 1\n",
                   "bayes: {epochs: 2, batch: 50, seeds: 1, draws: 4, schemes: [jq], bits: [4, 2]}\nseed: 1\n");
  const auto whole = place.Bitplan({"bayes", place.recipe(), "--out", "whole"});
  REQUIRE(whole.code == 0);
  const auto stopped = place.BitplanStopped({"bayes", place.recipe(), "--out", "out"}, SIGKILL, [&] {
    return std::filesystem::exists(place / "out/seed-1/jq-4-trained.packed");
  });
  CHECK(stopped.code == 128 + SIGKILL);
  REQUIRE(place.Bitplan({"bayes", place.recipe(), "--out", "out"}).code == 0);
  for (const char* name : {"seed-1/float.packed", "seed-1/jq-4-fine-tuned.packed", "seed-1/jq-2-fine-tuned.packed"}) {
    CHECK(ReadText(place / "out" / name) == ReadText(place / "whole" / name));
  }
  CHECK(ReadText(place / "out/bayes.csv") == ReadText(place / "whole/bayes.csv"));
}

TEST_CASE("bayes begins at the weights of a trained model") {
  const Workplace place;
  REQUIRE(place.Bitplan({"train", place.recipe(), "--out", "float"}).code == 0);
  place.EditRecipe("model: {architecture: lenet-300-100}\n", "");
  place.EditRecipe(
      "seed: 1\n",
      "bayes: {from: float/model.pt, epochs: 1, learning_rate: 0.00001, first_sigma: 0.01, batch: 50, seeds: 1, draws: "
      "4, schemes: [jq], bits: [8], stages: [trained]}\nseed: 1\n");
  const auto trained = BayesReport(place, {"--data", "."});
  CHECK(trained.at("model") == "model");
  // One step at a tiny learning rate: the accuracy is that of the trained weights, far from chance (1/4).
  CHECK(RowOf(trained, "float").at("seeds")[0].at("splits").at("clean").at("accuracy").get<double>() > 0.6);
}

TEST_CASE("bayes refuses what it cannot do in one line") {
  const Workplace place;
  const auto refused = [&](const std::vector<std::string>& settings, int code) {
    std::vector<std::string> arguments = {"bayes", place.recipe(), "--out", "out"};
    for (const auto& setting : settings) arguments.insert(arguments.end(), {"--set", setting});
    const auto outcome = place.Bitplan(arguments);
    INFO(outcome.err);
    CHECK(outcome.code == code);
    CHECK_FALSE(ErrorLine(outcome).empty());
    return ErrorLine(outcome);
  };
  CHECK_THAT(refused({"bayes.schemes=[jk]"}, 64), ContainsSubstring("jq"));
  CHECK_THAT(refused({"bayes.bits=[9]"}, 64), ContainsSubstring("8"));
  CHECK_THAT(refused({"bayes.bits=[]"}, 64), ContainsSubstring("at least one"));
  CHECK_THAT(refused({"bayes.ambiguous=mist"}, 64), ContainsSubstring("bayes.ambiguous") && ContainsSubstring("mnist"));
  CHECK_THAT(refused({"allocate.allocator=exact", "bayes.plan.average_bits=1", "allocate.bits=[2, 4]"}, 75),
             ContainsSubstring("2"));
  CHECK_THAT(refused({"bayes.stages=[tuned]"}, 64), ContainsSubstring("fine-tuned"));
  CHECK_THAT(refused({"bayes.ambiguous=ambigous-mnist"}, 64), ContainsSubstring("ambiguous-mnist"));
  CHECK_THAT(refused({"bayes.ambiguous=ambiguous-mnist"}, 66), ContainsSubstring("make-data"));
  CHECK_THAT(refused({"bayes.activation=gelu"}, 64), ContainsSubstring("relu"));
  CHECK_THAT(refused({"bayes.from=nothing.pt"}, 66), ContainsSubstring("nothing.pt"));
  CHECK_THAT(refused({"bayes.out_of_distribution=[mnist, synthetic-leters]"}, 64),
             ContainsSubstring("bayes.out_of_distribution") && ContainsSubstring("synthetic-letters"));
  CHECK_THAT(refused({"bayes.bits=[4, 4]"}, 64), ContainsSubstring("bayes.bits holds 4 twice"));
  CHECK_THAT(refused({"bayes.plan.average_bits=3"}, 64), ContainsSubstring("quantile-inform"));
  CHECK_THAT(refused({"bayes.sigma_bits=12"}, 64), ContainsSubstring("bayes.sigma_bits is 12"));
}
