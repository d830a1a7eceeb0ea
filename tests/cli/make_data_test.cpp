// `bitplan make-data`: refusals, and what is said of data that are there.
#include <nlohmann/json.hpp>

#include "bitplan/io/files.h"
#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

std::string Saved(const std::filesystem::path& file, const torch::Tensor& tensor) {
  const std::vector<char> bytes = torch::pickle_save(tensor);
  const std::string text(bytes.data(), bytes.size());
  WriteText(file, text);
  return bitplan::Sha256Hex(text);
}

// As the program leaves them, but blank.
void WriteMade(const Workplace& place) {
  const auto samples = Saved(place / "ambiguous-mnist/amnist_samples.pt", torch::zeros({12000, 1, 28, 28}));
  const auto labels = Saved(place / "ambiguous-mnist/amnist_labels.pt", torch::zeros({12000, 10}, torch::kInt64));
  const nlohmann::json half = {{"images", 6000},
                               {"drawn", 80000},
                               {"kept", 30000},
                               {"entropy", 0.6125},
                               {"information", 0.0125},
                               {"agreement", 0.75},
                               {"entropy_counts", std::vector<int>(50, 120)}};
  const nlohmann::json made = {{"made", 1},          {"name", "ambiguous-mnist"},
                               {"bitplan", "0.1.0"}, {"seed", 1},
                               {"labels", 10},       {"train", half},
                               {"test", half},       {"sha256", {{"samples", samples}, {"labels", labels}}}};
  WriteText(place / "ambiguous-mnist/made.json", made.dump());
}

std::string RefusedToMake(const Workplace& place, std::vector<std::string> arguments, int code) {
  arguments.insert(arguments.begin(), "make-data");
  const auto outcome = place.Bitplan(arguments);
  INFO(outcome.err);
  CHECK(outcome.code == code);
  CHECK(outcome.out.empty());
  CHECK_FALSE(ErrorLine(outcome).empty());
  return ErrorLine(outcome);
}

}  // namespace

TEST_CASE("make-data refuses what it cannot make in one line") {
  const Workplace place;
  CHECK_THAT(RefusedToMake(place, {"ambigous-mnist"}, 64), ContainsSubstring("nearest: ambiguous-mnist"));
  RefusedToMake(place, {}, 64);
  RefusedToMake(place, {"ambiguous-mnist", "--seed", "many"}, 64);
  CHECK_THAT(RefusedToMake(place, {"ambiguous-mnist"}, 66),
             ContainsSubstring("mnist/train-images") && ContainsSubstring("fetch-data"));
  CHECK_FALSE(std::filesystem::exists(place / "ambiguous-mnist"));
  WriteText(place / "ambiguous-mnist/amnist_labels.pt", "theirs");
  CHECK_THAT(RefusedToMake(place, {"ambiguous-mnist"}, 64),
             ContainsSubstring("amnist_labels.pt was not made by this program"));
  CHECK(ReadText(place / "ambiguous-mnist/amnist_labels.pt") == "theirs");
}

TEST_CASE("make-data says what is already there, as text and as JSON") {
  const Workplace place;
  WriteMade(place);
  const auto text = place.Bitplan({"make-data", "ambiguous-mnist"});
  INFO(text.err);
  REQUIRE(text.code == 0);
  CHECK_THAT(text.out, ContainsSubstring("already there") && ContainsSubstring("80,000") &&
                           ContainsSubstring("37.5 %") && ContainsSubstring("0.6125") && ContainsSubstring("75.0 %"));
  const auto json = place.Bitplan({"make-data", "ambiguous-mnist", "--json"});
  REQUIRE(json.code == 0);
  const auto report = nlohmann::json::parse(json.out);
  CHECK(report.at("made") == false);
  CHECK(report.at("test").at("candidates") == 80000);
  CHECK(report.at("train").at("entropy_histogram").size() == 50);
  // Another seed would be made anew, from MNIST.
  CHECK_THAT(RefusedToMake(place, {"ambiguous-mnist", "--seed", "2"}, 66), ContainsSubstring("mnist/train-images"));
}

TEST_CASE("a recipe whose data were not made yet names the command that makes them") {
  const Workplace place;
  const auto outcome =
      place.Bitplan({"run", place.recipe(), "--out", "out", "--set", "data={name: ambiguous-mnist, calibration: 10}"});
  CHECK(outcome.code == 66);
  CHECK_THAT(ErrorLine(outcome), ContainsSubstring("bitplan make-data ambiguous-mnist --data"));
}
