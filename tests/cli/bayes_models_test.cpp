// `bitplan bayes` on networks and images of one's own: caps of a plan, images and layers that are refused by name.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/bayes_report.h"
#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

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
    words.insert(words.end(), {"--set", "data.calibration=1280", "--set", "seed=" + std::to_string(seed), "--set",
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
    const auto report = BayesReport(place, {"--set", "data.calibration_from=" + from, "--set", "bayes.schemes=[vpq]",
                                            "--set", "bayes.stages=[trained]"});
    return report.at("images").at("clean").get<int>();
  };
  const int all = images("train");
  CHECK(images("test") == all - 50);
}
