// What `bitplan curve` and `allocate.budget.drop` promise on the command line.
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

std::size_t FilesIn(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder)) return 0;
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

}  // namespace

TEST_CASE("a curve that is stopped goes on, and ends as one that was not") {
  const Workplace place;
  const std::vector<std::string> words = {"curve", place.recipe(), "--out", "out", "--json", "--set", "curve.points=6"};
  const auto stopped = place.BitplanStopped(words, SIGTERM, [&] { return FilesIn(place / "out/compare") >= 2; });
  CHECK(stopped.code == 130);
  CHECK(!std::filesystem::exists(place / "out/curve.html"));
  const auto kept = FilesIn(place / "out/compare");
  const auto continued = place.Bitplan(words);
  INFO(continued.err);
  REQUIRE(continued.code == 0);
  auto report = nlohmann::json::parse(continued.out);
  CHECK(report.at("measured").get<std::size_t>() == report.at("plans").size() - kept);
  CHECK(FilesIn(place / "out/curve-plans") == report.at("plans").size());
  CHECK_THAT(ReadText(place / "out/curve.html"), ContainsSubstring("</html>"));
  const auto csv = ReadText(place / "out/curve.csv");
  CHECK(static_cast<std::size_t>(std::count(csv.begin(), csv.end(), '\n')) == report.at("plans").size() + 1);
  auto fresh_words = words;
  fresh_words[3] = "fresh";
  auto fresh = nlohmann::json::parse(place.Bitplan(fresh_words).out);
  CHECK(fresh.at("plans") == report.at("plans"));
  CHECK(fresh.at("front") == report.at("front"));
  // As text.
  const auto text = place.Bitplan({"curve", place.recipe(), "--out", "out", "--set", "curve.points=6"});
  CHECK_THAT(text.out, ContainsSubstring("dominated by") && ContainsSubstring("uniform") &&
                           ContainsSubstring("0 of them now") && ContainsSubstring("curve.html"));
}

TEST_CASE("a curve and a drop that make no sense are refused in one line") {
  const Workplace place;
  const auto refused = [&](std::vector<std::string> words, int code, const std::string& text) {
    words.insert(words.begin() + 1, place.recipe());
    words.insert(words.end(), {"--out", "out"});
    const auto outcome = place.Bitplan(words);
    CHECK(outcome.code == code);
    CHECK_THAT(ErrorLine(outcome), ContainsSubstring(text));
  };
  refused({"curve", "--set", "curve.points=1"}, 64, "curve.points is 1; it must be in 2..1000");
  refused({"curve", "--set", "allocate.budget.smallest=weight"}, 64, "allocate.budget.smallest");
  refused({"curve", "--set", "allocate.budget.smallest=activation_bytes"}, 64, "allocate.activation_bits");
  refused({"curve", "--set", "allocate.allocator=random-bits"}, 64, "learns from the network anew");
  refused({"curve", "--set", "allocate.exclude=[\"*\"]"}, 64, "leaves no layer to quantize");
  refused({"run", "--set", "allocate.budget.drop=-1"}, 64, "allocate.budget.drop is -1; it must be > 0");
  refused({"run", "--set", "allocate.budget.drop=1"}, 64, "at least 200 calibration images, and there are 50");
}
