// What plan, terminal and comparison say of the float network with the plan's own correction.
#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "cli/report.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

// The last bytes of a file of the workplace: what an npy file holds behind its header.
torch::Tensor NpyValues(const std::filesystem::path& file, std::vector<std::int64_t> shape, torch::ScalarType type) {
  const auto text = ReadText(file);
  auto values = torch::empty(shape, type);
  std::memcpy(values.data_ptr(), text.data() + text.size() - values.nbytes(), values.nbytes());
  return values;
}

struct Images {
  torch::Tensor cells, labels;  // [N, 16] means of 7x7 pixels, [N]
};

Images CellsOf(const Workplace& place, const std::string& split, std::int64_t count) {
  const auto pixels = NpyValues(place / (split + "-images.npy"), {count, 1, 28, 28}, torch::kUInt8);
  return {torch::avg_pool2d(pixels.to(torch::kFloat) / 255.0, 7).flatten(1),
          NpyValues(place / (split + "-labels.npy"), {count}, torch::kInt64)};
}

// Cells - linear - batch norm - relu - linear, fitted to the training images; then the statistics of its batch norm are
// spoiled, as in a network that was trained on something else. Writes model.pt and what a re-estimation makes of it.
class SpoiledNetwork {
 public:
  explicit SpoiledNetwork(const Workplace& place) {
    torch::manual_seed(4);
    const auto train = CellsOf(place, "train", 300);
    first_ = torch::randn({12, 16});
    const auto h = torch::linear(train.cells, first_);
    mean_ = h.mean(0);
    variance_ = h.var(0, /*unbiased=*/false);
    const auto features = Features(train.cells);
    const auto wanted = 8.0 * torch::one_hot(train.labels, 4).to(torch::kFloat) - 2.0;
    const auto ridge = torch::matmul(features.t(), features) + 3.0 * torch::eye(12);
    last_ = torch::matmul(torch::inverse(ridge), torch::matmul(features.t(), wanted)).t().contiguous();
    Write(place / "model.pt");
    place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
    // The correction sees all training images, so that a test can do it too.
    for (const char* part : {"images", "labels"}) {
      std::filesystem::copy_file(place / fmt::format("test-{}.npy", part), place / fmt::format("own-{}.npy", part));
    }
    place.EditRecipe("calibration: 50", "calibration_images: own-images.npy\n  calibration_labels: own-labels.npy");
  }

  // Of the network with the statistics of the training images.
  [[nodiscard]] double Accuracy(const Images& images) const {
    return torch::linear(Features(images.cells), last_)
        .argmax(1)
        .eq(images.labels)
        .to(torch::kFloat)
        .mean()
        .item<float>();
  }

 private:
  [[nodiscard]] torch::Tensor Features(const torch::Tensor& cells) const {
    return torch::relu((torch::linear(cells, first_) - mean_) / torch::sqrt(variance_ + 1e-5));
  }

  void Write(const std::filesystem::path& file) const {
    torch::jit::Module module("Net"), norm("bn");
    for (const auto& [name, weight] : {std::pair("first", first_), std::pair("last", last_)}) {
      torch::jit::Module layer(name);
      layer.register_parameter("weight", weight, false);
      module.register_module(name, layer);
    }
    norm.register_buffer("running_mean", mean_ + 3.0 * torch::sqrt(variance_) * torch::randn(12));
    norm.register_buffer("running_var", variance_ * torch::exp(torch::randn(12)));
    module.register_module("bn", norm);
    module.define(R"(
def forward(self, x):
    h = torch.linear(torch.avg_pool2d(x, [7, 7]).flatten(1), self.first.weight)
    h = torch.batch_norm(h, None, None, self.bn.running_mean, self.bn.running_var, False, 0.1, 1e-5, False)
    return torch.linear(torch.relu(h), self.last.weight)
)");
    module.save(file.string());
  }

  torch::Tensor first_, mean_, variance_, last_;
};

nlohmann::json JsonOf(const Workplace& place, const std::string& command, std::vector<std::string> sets) {
  std::vector<std::string> words = {command, place.recipe(), "--out", "out", "--json"};
  for (const auto& set : sets) words.insert(words.end(), {"--set", set});
  return ReportOf(place, std::move(words));
}

const std::vector<std::string> kReEstimated = {"quantizer.batch_norm=re-estimate", "quantizer.output_correction=off"};

}  // namespace

TEST_CASE("a network trained elsewhere: its plan states the drop from the corrected float network too") {
  const Workplace place;
  const SpoiledNetwork network(place);
  const auto report = JsonOf(place, "run", kReEstimated);
  const auto& verified = report.at("verified");
  const auto accuracy = [&](const char* which) { return verified.at(which).at("accuracy").get<double>(); };
  INFO(verified.dump(1));
  CHECK(accuracy("float_corrected") == Approx(network.Accuracy(CellsOf(place, "test", 100))).margin(1e-6));
  CHECK(accuracy("float_corrected") > accuracy("float") + 0.2);
  CHECK(verified.at("accuracy_drop").at("ci95").at(1) < 0.0);  // better than the float network as it came
  const auto& drop = verified.at("accuracy_drop_corrected");
  CHECK(drop.at("value").get<double>() == Approx(accuracy("float_corrected") - accuracy("quantized")).margin(1e-9));
  CHECK(drop.at("value") >= 0.0);
  CHECK(drop.at("ci95").at(0) <= drop.at("value"));
  CHECK(drop.at("ci95").at(1) >= drop.at("value"));
  CHECK_THAT(report.at("notes").dump(), ContainsSubstring("The float network with the same correction has"));
  const auto plan = ReadText(place / "out/plan.yaml");
  CHECK_THAT(plan, ContainsSubstring("\n  float_corrected: {") && ContainsSubstring("\n  accuracy_drop_corrected: {"));

  // Nothing runs again; the terminal and the list say both.
  for (const char* command : {"run", "verify"}) {
    for (const auto& stage : JsonOf(place, command, kReEstimated).at("stages")) CHECK(stage.at("reused") == true);
    CHECK(ReadText(place / "out/plan.yaml") == plan);
  }
  const auto shown = place.Bitplan({"verify", place.recipe(), "--out", "out"}).out;
  CHECK_THAT(shown, ContainsSubstring(fmt::format("float, corrected   {:.2f} %", 100 * accuracy("float_corrected"))));
  CHECK_THAT(shown,
             ContainsSubstring(fmt::format("drop, corrected    {:.2f} points", 100 * drop.at("value").get<double>())));
  CHECK_THAT(place.Bitplan({"list", "--out", "out"}).out, ContainsSubstring("drop, corrected"));
  CHECK(JsonOf(place, "list", {}).at("plans").at(0).at("verified").at("accuracy_drop_corrected") == drop);
  REQUIRE(
      place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", "out/plan.yaml", "--out-plan", "again.yaml"})
          .code == 0);
  CHECK(ReadText(place / "again.yaml") == plan);
}

TEST_CASE("a correction that leaves a float network as it is needs no second reference") {
  const Workplace place;
  const SpoiledNetwork network(place);
  for (const char* method : {"transfer", "off"}) {
    const auto report = JsonOf(place, "run", {std::string("quantizer.batch_norm=") + method});
    CHECK(report.at("verified").at("float_corrected").is_null());
    CHECK(report.at("verified").at("accuracy_drop_corrected").is_null());
    CHECK_THAT(ReadText(place / "out/plan.yaml"), !ContainsSubstring("corrected"));
  }
  CHECK_THAT(place.Bitplan({"verify", place.recipe(), "--out", "out"}).out, !ContainsSubstring("corrected  "));
  CHECK_THAT(place.Bitplan({"list", "--out", "out"}).out, !ContainsSubstring("corrected"));
}

TEST_CASE("the second reference follows the number of images that the correction sees") {
  const Workplace place;
  const SpoiledNetwork network(place);
  const auto nll = [&](const std::string& samples) {
    auto sets = kReEstimated;
    sets.insert(sets.end(), {"quantizer.correction_samples=" + samples, "compare={budgets: [2], allocators: [exact]}"});
    const auto plan = JsonOf(place, "compare", sets).at("plans").at(0);
    return plan.at("float_corrected").at("nll").get<double>();
  };
  const double of_many = nll("300"), of_few = nll("20");
  CHECK(of_many != of_few);
  CHECK(nll("300") == of_many);
}

TEST_CASE("compare measures the corrected float network once, and states the drop of every plan from it") {
  const Workplace place;
  const SpoiledNetwork network(place);
  auto sets = kReEstimated;
  sets.push_back("compare={budgets: [2, 3], seeds: 2, calibration_seeds: 1, allocators: [exact, random]}");
  std::vector<std::string> words = {"compare", place.recipe(), "--out", "out"};
  for (const auto& set : sets) words.insert(words.end(), {"--set", set});
  const auto times_measured = [&] {
    const auto said = place.Bitplan(words).err;
    int times = 0;
    for (auto at = said.find("float model, corrected: "); at != std::string::npos; ++times) {
      at = said.find("float model, corrected: ", at + 1);
    }
    return times;
  };
  CHECK(times_measured() == 1);
  CHECK(times_measured() == 0);
  std::filesystem::remove_all(place / "out/compare");
  const auto report = JsonOf(place, "compare", sets);
  const auto& reference = report.at("plans").at(0).at("float_corrected");
  CHECK(reference.at("accuracy").get<double>() == Approx(network.Accuracy(CellsOf(place, "test", 100))).margin(1e-6));
  for (const auto& plan : report.at("plans")) {
    CHECK(plan.at("float_corrected") == reference);
    const double lost = reference.at("accuracy").get<double>() - plan.at("metrics").at("accuracy").get<double>();
    CHECK(plan.at("drop_corrected").at("value").get<double>() == Approx(lost).margin(1e-9));
  }
  const auto kept = std::distance(std::filesystem::directory_iterator(place / "out/compare"), {});
  CHECK(kept == report.at("measured").get<int>() + 1);
  CHECK_THAT(ReadText(place / "out/report.html"), ContainsSubstring("drop from float, corrected"));
  const auto again = JsonOf(place, "compare", sets);
  for (std::size_t i = 0; i < report.at("plans").size(); ++i) {
    const auto &plan = again.at("plans").at(i), &before = report.at("plans").at(i);
    CHECK(plan.at("float_corrected") == before.at("float_corrected"));
    CHECK(plan.at("drop_corrected") == before.at("drop_corrected"));
  }

  const auto file = "out/" + report.at("plans").at(0).at("plan").get<std::string>();
  const auto outcome =
      place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", file, "--out-plan", "again.yaml"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const auto measured = [](const std::string& text) {
    return text.substr(text.find("verified:"), text.find("provenance:") - text.find("verified:"));
  };
  CHECK_THAT(ReadText(place / file), ContainsSubstring("float_corrected"));
  CHECK(measured(ReadText(place / "again.yaml")) == measured(ReadText(place / file)));

  const auto shown = place.Bitplan(words).out;
  CHECK_THAT(shown, ContainsSubstring("float, corrected   batch norm re-estimate, outputs off: ") &&
                        ContainsSubstring("  drop, corrected  ") && ContainsSubstring(", corrected +"));
  // With other calibration seeds the correction sees other images: a second reference of each, and their mean.
  sets.back() = "compare={budgets: [2], calibration_seeds: 2, allocators: [exact]}";
  for (const auto& plan : JsonOf(place, "compare", sets).at("plans")) {
    double sum = 0.0;
    for (const auto& seed : plan.at("seeds")) {
      const double accuracy = seed.at("float_corrected").at("accuracy");
      sum += accuracy;
      CHECK((accuracy == reference.at("accuracy")) == (seed.at("calibration_seed") == 1));
    }
    CHECK(plan.at("float_corrected").at("accuracy").get<double>() == Approx(sum / 2.0));
    const double lost = sum / 2.0 - plan.at("metrics").at("accuracy").get<double>();
    CHECK(plan.at("drop_corrected").at("value").get<double>() == Approx(lost).margin(1e-9));
  }
  sets[0] = "quantizer.batch_norm=transfer";
  for (const auto& plan : JsonOf(place, "compare", sets).at("plans")) CHECK(plan.at("drop_corrected").is_null());
}
