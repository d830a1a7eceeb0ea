// Tables of the user's own: what the output says of them, and what is kept of labels that the network gave.
#include <fmt/format.h>
#include <torch/script.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "bitplan/core/random.h"
#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

const std::vector<std::string> kThree = {"dog", "owl", "cat"};

// Points around places of their own for every class.
void WriteTable(const Workplace& place, const std::string& file, int rows, const std::vector<std::string>& classes) {
  bitplan::RandomStream stream(3, "test/" + file);
  std::string text = "x,y,kind\n";
  for (int i = 0; i < rows; ++i) {
    const auto c = static_cast<std::size_t>(i) % classes.size();
    text += fmt::format("{},{},{}\n", stream.Uniform(-1, 1) + (c == 0 ? 3 : 0),
                        stream.Uniform(-1, 1) + (c == 1 ? 3 : 0), classes[c]);
  }
  WriteText(place / file, text);
}

// A model.pt with so many outputs, and a recipe for the tables.
void WriteRecipe(const Workplace& place, std::int64_t outputs, const std::string& more = "") {
  torch::manual_seed(1);
  torch::jit::Module module("linear");
  module.register_parameter("weight", torch::randn({outputs, 2}), false);
  module.define("def forward(self, x):\n  return torch.linear(x, self.weight)\n");
  module.save((place / "model.pt").string());
  WriteText(place.recipe(),
            "bitplan: 1\nname: points\nmodel: {file: model.pt}\n"
            "data: {name: csv, train: train.csv, test: test.csv" +
                more +
                "}\n"
                "allocate: {allocator: exact, budget: {average_bits: 4}}\nverify: {bootstrap: 200}\n");
}

void WriteThree(const Workplace& place, std::int64_t outputs, const std::string& more = "") {
  WriteTable(place, "train.csv", 60, kThree);
  WriteTable(place, "test.csv", 30, kThree);
  WriteRecipe(place, outputs, more);
}

Outcome RunHere(const Workplace& place, const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {"run", place.recipe(), "--out", "out"};
  words.insert(words.end(), more.begin(), more.end());
  return place.Bitplan(words);
}

nlohmann::json JsonOf(const Outcome& outcome) {
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  return nlohmann::json::parse(outcome.out);
}

// Whether the stage ran again; nothing where the command had no use for it.
std::optional<bool> RanAgain(const nlohmann::json& report, const std::string& name) {
  for (const auto& stage : report.at("stages")) {
    if (stage.at("name") == name) return !stage.at("reused").get<bool>();
  }
  return std::nullopt;
}

}  // namespace

TEST_CASE("a run on a table says its classes with their numbers, and speaks of rows") {
  const Workplace place;
  WriteThree(place, 3);
  const auto said = RunHere(place);
  INFO(said.err);
  REQUIRE(said.code == 0);
  CHECK_THAT(said.out, ContainsSubstring("\nclasses            0 cat, 1 dog, 2 owl\n"));
  CHECK_THAT(said.out,
             ContainsSubstring("\ncalibration        12 of the training rows; a model from a file has "
                               "probably seen them; a fifth, for data.calibration 5,000 is more than half\n"));
  CHECK_THAT(said.out, !ContainsSubstring("training files too") && !ContainsSubstring("the network 3 outputs"));
  const auto again = JsonOf(RunHere(place, {"--json"}));
  CHECK(RanAgain(again, "model") == false);
  CHECK(again.at("classes") == nlohmann::json({"cat", "dog", "owl"}));
  CHECK(again.at("calibration").at("images") == 12);
  CHECK(again.at("calibration").at("asked") == 5000);
  const auto asked = JsonOf(RunHere(place, {"--json", "--set", "data.calibration=30"}));
  CHECK(asked.at("calibration").at("images") == 30);
  CHECK_FALSE(asked.at("calibration").contains("asked"));
}

TEST_CASE("a table that is trained on and measured on, and classes that the data lack, are noted") {
  const Workplace place;
  WriteThree(place, 4);
  const auto said = RunHere(place, {"--set", "data.test=train.csv"});
  INFO(said.err);
  REQUIRE(said.code == 0);
  CHECK_THAT(said.out, ContainsSubstring("note               the test files are training files too"));
  CHECK_THAT(said.out, ContainsSubstring("note               the data have 3 classes, the network 4 outputs"));
}

TEST_CASE("a row of a class that the model does not have is named by file, line and class") {
  const Workplace place;
  WriteThree(place, 2);
  const auto said = RunHere(place);
  CHECK(said.code == 65);
  CHECK_THAT(ErrorLine(said), ContainsSubstring("line 3 of ") &&
                                  ContainsSubstring("train.csv is of class 2, 'owl', but model model has 2 outputs"));
}

TEST_CASE("of many classes the first and the last are said") {
  const Workplace place;
  std::vector<std::string> many;
  for (int c = 0; c < 200; ++c) many.push_back(fmt::format("c{:03}", c));
  WriteTable(place, "train.csv", 400, many);
  WriteTable(place, "test.csv", 200, many);
  WriteRecipe(place, 200);
  const auto said = RunHere(place);
  INFO(said.err);
  REQUIRE(said.code == 0);
  CHECK_THAT(said.out, ContainsSubstring("\nclasses            0 c000, 1 c001, ") &&
                           ContainsSubstring(", ..., 199 c199\n") && !ContainsSubstring("c150"));
}

TEST_CASE("labels that the network gave are kept, and a second command takes them from the folder") {
  const Workplace place;
  WriteThree(place, 3, ", label: none, columns: [x, y]");
  const auto first = JsonOf(RunHere(place, {"--json"}));
  CHECK(RanAgain(first, "labels") == true);
  CHECK(first.at("verified").at("float").at("accuracy") == 1.0);
  CHECK_FALSE(first.contains("classes"));
  const std::vector<std::string> other = {"--json", "--set", "allocate.budget.average_bits=3"};
  const auto second = JsonOf(RunHere(place, other));
  CHECK(RanAgain(second, "apply") == true);
  CHECK(RanAgain(second, "labels") == false);
  // What was kept is what would be found anew.
  std::filesystem::remove_all(place / "out");
  const auto anew = JsonOf(RunHere(place, other));
  CHECK(RanAgain(anew, "labels") == true);
  CHECK(anew.at("verified") == second.at("verified"));
}
