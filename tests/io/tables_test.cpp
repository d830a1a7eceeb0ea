#include "bitplan/io/tables.h"

#include <limits>

#include "bitplan/io/files.h"
#include "io/scratch.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

AllocationProblem Problem() {
  AllocationProblem problem;
  problem.widths = {1, 2, 8};
  Unit conv;
  conv.name = "features.0";
  conv.weights = 500;
  conv.scales = 20;
  conv.macs = 288000;
  conv.coherence = {1.5, 1.0 / 3.0, 1.0};
  for (int p = 0; p < kPercentiles; ++p) {
    conv.score_percentiles.push_back(-3.0 + p / 7.0);
    conv.log_sigma_percentiles.push_back(-9.0 + p / 11.0);
  }
  Unit fc;
  fc.name = "fc";
  fc.weights = 5000;
  fc.scales = 10;
  fc.macs = 5000;
  problem.units = {conv, fc};
  problem.loss_rise = {{0.1, 1e-9 / 3.0, 0.0}, {std::numeric_limits<double>::max(), 4.9e-324, 0.0}};
  return problem;
}

std::string TableComplaint(const std::string& from, const std::string& to) {
  std::string text = DumpProblem(Problem());
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
  const Error error = ErrorOf([&] { (void)ParseProblem(text, "s.json"); });
  CHECK(error.kind() == ErrorKind::kData);
  CHECK_THAT(error.what(), ContainsSubstring("s.json: ") && !ContainsSubstring("\n"));
  return error.what();
}

}  // namespace

TEST_CASE("the draws of a posterior survive the round trip") {
  const Scratch folder;
  const auto file = folder / "draws.json";
  const AllocationProblem table = Problem();
  const std::vector<double> rises = {0.5, 1.0 / 3.0, 2.0};
  std::vector<double> shifts(kPercentiles, -1e-17);
  shifts[50] = 1.0 / 7.0;
  const std::vector<PosteriorDraw> draws(2, {{rises, rises}, {shifts, shifts}, {shifts, shifts}});
  WriteFileAtomically(file, DumpPosteriorDraws(draws));
  const auto read = LoadPosteriorDraws(file, table);
  REQUIRE(read.size() == 2);
  CHECK(read[0].rise == draws[0].rise);
  CHECK(read[0].score == draws[0].score);
  CHECK(read[0].log_sigma == draws[0].log_sigma);
  WriteFileAtomically(file, R"([{"rise": [[1.0]]}])");
  CHECK(ErrorOf([&] { (void)LoadPosteriorDraws(file, table); }).kind() == ErrorKind::kData);
  WriteFileAtomically(file, DumpPosteriorDraws({{{rises}, {shifts}, {shifts}}}));  // one layer of two
  CHECK_THAT(ErrorOf([&] { (void)LoadPosteriorDraws(file, table); }).what(), ContainsSubstring("layers and widths"));
}

TEST_CASE("the replicates of a table survive the round trip") {
  AllocationProblem before = Problem();
  CHECK(ParseProblem(DumpProblem(before), "s.json").replicates.empty());
  before.replicates = {{{0.2, 1e-9 / 7.0, 0.0}, {1.0, 0.5, 0.25}}, {{0.3, 0.1, 0.0}, {2.0, 1.0, 0.5}}};
  const std::string text = DumpProblem(before);
  CHECK(ParseProblem(text, "s.json").replicates == before.replicates);
  std::string torn = text;  // one unit lacks a replicate
  const std::string last = ",[2.0,1.0,0.5]";
  torn.erase(torn.find(last), last.size());
  CHECK_THROWS_AS(ParseProblem(torn, "s.json"), Error);
}

TEST_CASE("a sensitivity table survives the round trip bit for bit") {
  const AllocationProblem before = Problem();
  const AllocationProblem after = ParseProblem(DumpProblem(before), "s.json");
  CHECK(after.widths == before.widths);
  CHECK(after.loss_rise == before.loss_rise);
  REQUIRE(after.units.size() == before.units.size());
  for (std::size_t u = 0; u < before.units.size(); ++u) {
    CHECK(after.units[u].name == before.units[u].name);
    CHECK(after.units[u].weights == before.units[u].weights);
    CHECK(after.units[u].scales == before.units[u].scales);
    CHECK(after.units[u].macs == before.units[u].macs);
    CHECK(after.units[u].coherence == before.units[u].coherence);
    CHECK(after.units[u].score_percentiles == before.units[u].score_percentiles);
    CHECK(after.units[u].log_sigma_percentiles == before.units[u].log_sigma_percentiles);
  }
  CHECK(DumpProblem(after) == DumpProblem(before));
}

TEST_CASE("text that is no sensitivity table is refused") {
  for (const char* text : {"", "{", "[]", "{}", "{\"widths\": [1]}", "{\"bitplan_sensitivity\": 1}", "null"}) {
    const Error error = ErrorOf([&] { (void)ParseProblem(text, "s.json"); });
    CHECK(error.kind() == ErrorKind::kData);
    CHECK_THAT(error.what(), ContainsSubstring("s.json: "));
  }
}

TEST_CASE("a table of another version, or with unknown, missing or inconsistent parts, is refused") {
  CHECK_THAT(TableComplaint("\"bitplan_sensitivity\": 1", "\"bitplan_sensitivity\": 2"),
             ContainsSubstring("format 2 is unknown"));
  CHECK_THAT(TableComplaint("\"macs\"", "\"macz\""),
             ContainsSubstring("unknown key 'macz'") && ContainsSubstring("nearest: macs"));
  CHECK_THAT(TableComplaint("\"macs\":288000,", ""), ContainsSubstring("macs"));
  CHECK_THAT(TableComplaint("\"weights\":500,", "\"weights\":\"500\","), ContainsSubstring("a whole number is wanted"));
  CHECK_THAT(TableComplaint("\"widths\": [1,2,8]", "\"widths\": [1,2]"), ContainsSubstring("3 entries for 2 widths"));
  CHECK_THAT(TableComplaint("[0.1,", "[-0.1,"), ContainsSubstring("features.0"));
  CHECK_THAT(TableComplaint("[0.1,", "[1e999,"), ContainsSubstring("1e999"));
}

TEST_CASE("a table that is inconsistent is not written") {
  AllocationProblem problem = Problem();
  problem.loss_rise[0][0] = std::numeric_limits<double>::quiet_NaN();
  CHECK(ErrorOf([&] { (void)DumpProblem(problem); }).kind() == ErrorKind::kInternal);
}

TEST_CASE("a table is loaded from a file, and a missing one is not found") {
  const Scratch scratch;
  WriteFileAtomically(scratch / "sensitivity.json", DumpProblem(Problem()));
  CHECK(LoadProblem(scratch / "sensitivity.json").units.size() == 2);
  CHECK(ErrorOf([&] { (void)LoadProblem(scratch / "other.json"); }).kind() == ErrorKind::kNotFound);
}
