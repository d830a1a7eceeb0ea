// `bitplan bayes` on a little data set: what it writes, what it keeps, what it refuses.
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
  // float, three schemes trained and fine-tuned, vpq with a linear grid, the plan
  REQUIRE(report.at("rows").size() == 1 + 6 + 1 + 1);
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
  for (const char* name : {"bayes.json", "bayes.csv", "report.html", "plots/fidelity.gp", "plots/epistemic.dat"}) {
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
  CHECK(finer.at("stages").size() - static_cast<std::size_t>(RowReused(finer)) == 2 * 9);
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
  CHECK_THAT(refused({"bayes.bits=[4, 4]"}, 64), ContainsSubstring("bayes.bits holds 4 twice"));
  CHECK_THAT(refused({"bayes.plan.average_bits=3"}, 64), ContainsSubstring("quantile-inform"));
  CHECK_THAT(refused({"bayes.sigma_bits=12"}, 64), ContainsSubstring("bayes.sigma_bits is 12"));
}
