// `bitplan bayes` on a little data set: what it writes, what it keeps, what it refuses.
#include <cmath>
#include <csignal>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

constexpr const char* kBayes =
    "bayes: {epochs: 2, batch: 50, seeds: 2, draws: 4, schemes: [vpq, spq, jq], bits: [4], fine_tune_epochs: 1,\n"
    "        sigma_scales: [log, linear], plan: {average_bits: 3.5}}\nseed: 1\n";

nlohmann::json Json(const Workplace& place, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"bayes", place.recipe(), "--out", "out", "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const auto outcome = place.Bitplan(arguments);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  return nlohmann::json::parse(outcome.out);
}

const nlohmann::json& RowOf(const nlohmann::json& report, const std::string& name) {
  for (const auto& row : report.at("rows")) {
    if (row.at("name") == name) return row;
  }
  FAIL("no row " + name);
  return report;
}

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
  const auto report = Json(place);
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

  const auto again = Json(place);
  CHECK(RowReused(again) == static_cast<int>(again.at("stages").size()));
  CHECK(again.at("rows") == report.at("rows"));
  // Another width runs its own rows, each a network and its measurement, and nothing else.
  const auto wider = Json(place, {"--set", "bayes.bits=[4, 8]"});
  CHECK(wider.at("stages").size() - static_cast<std::size_t>(RowReused(wider)) == 2 * 2 * 7);
  // More draws measure again and train nothing.
  const auto finer = Json(place, {"--set", "bayes.draws=6"});
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
      "--set", "bayes.plan.average_bits=0", "--set", "bayes.epochs=12", "--set", "bayes.prior_sigma=1"};
  const auto report = Json(place, settings);
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
  const auto alone = Json(place, one);
  CHECK(RowOf(alone, "jq-4-fine-tuned").at("accuracy_drop").at("all").at("seeds_ci95").is_null());
  CHECK(RowReused(alone) == static_cast<int>(alone.at("stages").size()));
  std::vector<std::string> words = {"bayes", place.recipe(), "--out", "out"};
  words.insert(words.end(), one.begin(), one.end());
  CHECK_THAT(place.Bitplan(words).out, ContainsSubstring("one: there is no interval over seeds"));

  auto without = settings;
  without.insert(without.end(), {"--set", "bayes.control=false"});
  const auto uncontrolled = Json(place, without);
  CHECK(uncontrolled.at("control").is_null());
  CHECK(uncontrolled.at("rows").size() == report.at("rows").size() - 1);
}

TEST_CASE("every data set of unknown inputs is measured by itself, and one may stand alone") {
  const Workplace place;
  place.EditRecipe("seed: 1\n",
                   "bayes: {epochs: 2, batch: 50, seeds: 1, draws: 4, schemes: [vpq], bits: [4], stages: [trained]}\n"
                   "seed: 1\n");
  const auto both = Json(place, {"--set", "bayes.out_of_distribution=[synthetic-letters, synthetic-digits]"});
  CHECK(both.at("data").at("out-of-distribution") == "synthetic-letters");
  CHECK(both.at("data").at("out-of-distribution-2") == "synthetic-digits");
  CHECK(both.at("images").at("out-of-distribution") == 9600);
  CHECK(both.at("images").at("out-of-distribution-2") == 4000);
  const auto& seed = RowOf(both, "vpq-4-trained").at("seeds")[0];
  CHECK(seed.at("auroc").size() == 2);
  CHECK(seed.at("auroc").at("out-of-distribution") != seed.at("auroc").at("out-of-distribution-2"));
  CHECK(RowOf(both, "vpq-4-trained").at("epistemic_drift").size() == 3);
  const auto alone = Json(place, {"--set", "bayes.out_of_distribution=synthetic-digits"});
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
  const auto trained = Json(place, {"--data", "."});
  CHECK(trained.at("model") == "model");
  // One step at a tiny learning rate: the accuracy is that of the trained weights, far from chance (1/4).
  CHECK(RowOf(trained, "float").at("seeds")[0].at("splits").at("clean").at("accuracy").get<double>() > 0.6);
}

namespace {

// fc1 [16, 784] - relu - fc2 [4, 16] in `body`, which may also use rare [4, 16] and table [256, 4].
void SaveTwoLayers(const Workplace& place, const std::string& body) {
  torch::manual_seed(1);
  torch::jit::Module module("two_layers");
  module.register_parameter("fc1", torch::randn({16, 784}) * 0.05, false);
  module.register_parameter("fc2", torch::randn({4, 16}) * 0.3, false);
  module.register_parameter("rare", torch::randn({4, 16}) * 0.3, false);
  module.register_parameter("table", torch::randn({256, 4}), false);
  module.define("def forward(self, x):\n" + body);
  module.save((place / "model.pt").string());
}

constexpr const char* kTwoLayers =
    "  h = torch.relu(torch.linear(x.flatten(1), self.fc1))\n  y = torch.linear(h, self.fc2)\n";

constexpr const char* kShort =
    "bayes: {epochs: 1, learning_rate: 0.0001, first_sigma: 0.01, batch: 50, seeds: 1, draws: 4, schemes: [jq], bits: "
    "[4], fine_tune_epochs: 1}\nseed: 1\n";

// float32 [count, 1, 28, 28] between 0 and 1; the image `bad` is blank.
void WriteFloats(const std::filesystem::path& file, std::int64_t count, std::int64_t bad) {
  torch::manual_seed(5);
  torch::Tensor images = torch::rand({count, 1, 28, 28});
  if (bad >= 0) images[bad].zero_();
  WriteNpy(file, "<f4", {count, 1, 28, 28},
           std::string(static_cast<const char*>(images.data_ptr()), images.numel() * sizeof(float)));
}

std::int64_t ImagesIn(const std::filesystem::path& labels) {
  return (static_cast<std::int64_t>(std::filesystem::file_size(labels)) - 128) / 8;
}

}  // namespace

namespace {

// `single` images of four classes with one label, then `several` with three labels each that are not clear.
void WriteBothKinds(const Workplace& place, const std::string& split, std::int64_t single, std::int64_t several) {
  torch::manual_seed(static_cast<std::uint64_t>(single));
  std::vector<std::uint8_t> pixels;
  std::vector<std::int64_t> labels;
  const auto put = [&](std::int64_t first, std::int64_t second, const std::vector<std::int64_t>& of) {
    torch::Tensor image = torch::randint(90, {28, 28});
    image.slice(0, 7 * first, 7 * first + 7) += 60;
    image.slice(0, 7 * second, 7 * second + 7) += 60;
    const torch::Tensor bytes = image.to(torch::kUInt8).contiguous();
    for (const std::int64_t label : of) {
      pixels.insert(pixels.end(), bytes.data_ptr<std::uint8_t>(), bytes.data_ptr<std::uint8_t>() + bytes.numel());
      labels.push_back(label);
    }
  };
  for (std::int64_t i = 0; i < single; ++i) put(i % 4, i % 4, {i % 4});
  for (std::int64_t i = 0; i < several; ++i) {
    const std::int64_t first = i % 4, second = (first + 1 + i / 4 % 3) % 4;
    put(first, second, {first, second, first});
  }
  const auto rows = static_cast<std::int64_t>(labels.size());
  WriteNpy(place / (split + "-images.npy"), "|u1", {rows, 28, 28}, std::string(pixels.begin(), pixels.end()));
  WriteNpy(place / (split + "-labels.npy"), "<i8", {rows},
           std::string(reinterpret_cast<const char*>(labels.data()), labels.size() * sizeof(std::int64_t)));
}

// The largest bound of a drift of either uncertainty among checks of one kind ("": both), choosing or confirming.
double LargestBound(const nlohmann::json& caps, const std::string& kind, bool confirming) {
  double most = 0.0;
  for (const auto& check : caps) {
    if ((!kind.empty() && check.at("kind") != kind) || check.at("confirming") != confirming) continue;
    for (const char* drift : {"aleatoric_drift", "epistemic_drift"}) {
      most = std::max(most, check.at(drift).at("at_most").get<double>());
    }
  }
  return most;
}

}  // namespace

TEST_CASE("caps of a plan hold for every kind of image, and images that chose no budget confirm them") {
  const Workplace place;
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
  SaveTwoLayers(place, kTwoLayers + std::string("  return y\n"));
  WriteBothKinds(place, "train", 1600, 320);
  WriteBothKinds(place, "test", 100, 10);
  place.EditRecipe("seed: 1\n",
                   "bayes: {epochs: 6, learning_rate: 0.01, batch: 50, seeds: 1, draws: 6, schemes: [vpq], bits: [8],\n"
                   "        stages: [trained],\n"
                   "        fine_tune_epochs: 1, plan: {average_bits: 2, accuracy_drop: 0.9999}}\nseed: 1\n");
  place.EditRecipe("allocator: quantile-inform", "allocator: exact");
  const auto run = [&](std::uint64_t seed, double drift) {
    std::vector<std::string> words = {"bayes", place.recipe(), "--out", "out", "--json"};
    words.insert(words.end(), {"--set", "data.calibration=1700", "--set", "seed=" + std::to_string(seed), "--set",
                               "bayes.plan.drift=" + std::to_string(drift)});
    const auto outcome = place.Bitplan(words);
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    return outcome;
  };
  const auto caps_of = [](const Outcome& outcome) {
    return RowOf(nlohmann::json::parse(outcome.out), "plan-2").at("seeds")[0].at("caps");
  };
  // A cap that nothing breaks: both kinds are checked on the choosing and on the confirming images.
  bool judged = false, confirmed = false;
  for (std::uint64_t seed = 1; seed <= 6 && !(judged && confirmed); ++seed) {
    const auto free = caps_of(run(seed, 1.0));
    REQUIRE(free.size() == 4);
    for (const auto& check : free) {
      CHECK(check.at("budget") == 2.0);
      CHECK(check.at("images").get<int>() > 20);
    }
    CHECK((free[0].at("kind") == "one label" && free[1].at("kind") == "several labels"));
    CHECK((free[2].at("confirming") == true && free[2] != free[0]));
    const double clear = LargestBound(free, "one label", false), unclear = LargestBound(free, "several labels", false),
                 choosing = std::max(clear, unclear), confirming = LargestBound(free, "", true);
    // A cap just below the bound of one kind, well above that of the other: the budget rises for that kind alone.
    if (!judged && std::max(clear, unclear) > 1.2 * std::min(clear, unclear) && choosing < 1.0) {
      judged = true;
      const auto risen = run(seed, 0.98 * choosing);
      CHECK_THAT(risen.err, ContainsSubstring(clear > unclear ? "about images with one label changes"
                                                              : "about images with several labels changes"));
      CHECK_THAT(risen.err, ContainsSubstring("at 2 bits; the budget rises"));
      CHECK(caps_of(risen).back().at("budget").get<double>() > 2.0);
    }
    // A cap between the bounds of choosing and of confirming images: the budget stays, and a warning says what is
    // missing.
    if (!confirmed && confirming > 1.05 * choosing && choosing < 0.9) {
      confirmed = true;
      const auto missed = run(seed, (choosing + std::min(confirming, 0.99)) / 2.0);
      CHECK_THAT(missed.err, ContainsSubstring("images that chose no budget do not confirm the caps at 2 bits"));
      CHECK(caps_of(missed).size() == 4);
    }
  }
  CHECK(judged);
  CHECK(confirmed);
}

TEST_CASE("bayes names the image for which a network gives no numbers, wherever it is met") {
  const Workplace place;
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
  place.EditRecipe("seed: 1\n", kShort);
  SaveTwoLayers(place, "  x = 784.0 * x / x.sum([1, 2, 3], True)\n" + std::string(kTwoLayers) + "  return y\n");
  const auto train = ImagesIn(place / "train-labels.npy"), test = ImagesIn(place / "test-labels.npy");
  REQUIRE(train > 100);
  const auto outcome = [&](std::int64_t bad_train, std::int64_t bad_test) {
    std::filesystem::remove_all(place / "out");
    WriteFloats(place / "train-images.npy", train, bad_train);
    WriteFloats(place / "test-images.npy", test, bad_test);
    return place.Bitplan({"bayes", place.recipe(), "--out", "out"});
  };
  // Most images are trained on; some of the first sixty are calibration images, met when the table or the scales are.
  for (const std::int64_t bad : {7, 17, 27, 37, 47, 57}) {
    const auto refused = outcome(bad, -1);
    CHECK(refused.code == 65);
    CHECK_THAT(ErrorLine(refused),
               ContainsSubstring("of image " + std::to_string(bad) + " of npy/train is not finite"));
  }
  const auto measured = outcome(-1, 3);
  CHECK(measured.code == 65);
  CHECK_THAT(ErrorLine(measured), ContainsSubstring("of image 3 of npy/test is not finite"));
  CHECK(outcome(-1, -1).code == 0);
}

TEST_CASE("bayes rounds the inputs of a layer that some images reach, and names one that none reaches") {
  const Workplace place;
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
  place.EditRecipe("seed: 1\n", kShort);
  const std::string branch =
      "  if bool(some.any()):\n    y = torch.where(some.unsqueeze(1), torch.linear(h, self.rare), "
      "y)\n  return y\n";
  const auto run = [&](const std::string& some) {
    std::filesystem::remove_all(place / "out");
    SaveTwoLayers(place, kTwoLayers + ("  some = " + some + "\n") + branch);
    return place.Bitplan({"bayes", place.recipe(), "--out", "out", "--json"});
  };
  const auto reached = run("x.mean([1, 2, 3]) > 0.253");
  INFO(reached.err);
  REQUIRE(reached.code == 0);
  CHECK(nlohmann::json::parse(reached.out).at("layers").size() == 3);
  const auto missed = run("x.mean([1, 2, 3]) < 0.0001");  // a zero image, as the layers are looked for with
  CHECK(missed.code == 65);
  CHECK_THAT(ErrorLine(missed), ContainsSubstring("layer rare of model runs for none of the first"));
}

TEST_CASE("bayes asks of a model what run asks") {
  const Workplace place;
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
  place.EditRecipe("seed: 1\n", kShort);
  const auto refused = [&](const std::string& body) {
    SaveTwoLayers(place, body);
    const auto outcome = place.Bitplan({"bayes", place.recipe(), "--out", "out"});
    CHECK(outcome.code == 65);
    return ErrorLine(outcome);
  };
  const std::string layers = kTwoLayers;
  CHECK_THAT(refused(layers + "  return y.softmax(1)\n"), ContainsSubstring("probabilities, not logits"));
  CHECK_THAT(refused(layers + "  return y - y.mean([0])\n"), ContainsSubstring("depend on the other images"));
  CHECK_THAT(refused(layers + "  return torch.dropout(y, 0.5, True)\n"), ContainsSubstring("dropout is active"));
  CHECK_THAT(refused(layers + "  return y[:, :3]\n"),
             ContainsSubstring("has the label 3, but model model has 3 outputs"));
  CHECK_THAT(refused("  y = torch.embedding(self.table, x.flatten(1))[:, :4]\n  return torch.linear(y.flatten(1), "
                     "self.fc2)\n"),
             ContainsSubstring("takes integers"));
  // Accepted with a warning, as by run.
  SaveTwoLayers(place, layers + "  return y - y.mean([0])\n");
  const auto accepted =
      place.Bitplan({"bayes", place.recipe(), "--out", "out", "--set", "model.answers_may_vary=true"});
  INFO(accepted.err);
  CHECK(accepted.code == 0);
  CHECK_THAT(accepted.err, ContainsSubstring("depend on the other images"));
}

TEST_CASE("bayes does not measure on the calibration images that were taken off the test images") {
  const Workplace place;
  place.EditRecipe("seed: 1\n", kShort);
  const auto images = [&](const std::string& from) {
    const auto report = Json(place, {"--set", "data.calibration_from=" + from, "--set", "bayes.schemes=[vpq]", "--set",
                                     "bayes.stages=[trained]"});
    return report.at("images").at("clean").get<int>();
  };
  const int all = images("train");
  CHECK(images("test") == all - 50);
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
