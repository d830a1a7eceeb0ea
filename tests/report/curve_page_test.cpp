#include <array>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "bitplan/io/files.h"
#include "bitplan/report/measured_curve.h"
#include "io/scratch.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

Verification Measured(double accuracy) {
  Verification verified;
  verified.data = "set/test";
  verified.samples = 100;
  verified.float_model.accuracy = 0.9;
  verified.quantized.accuracy = accuracy;
  verified.accuracy_drop = {.drop = 0.9 - accuracy, .ci_low = 0.85 - accuracy, .ci_high = 0.95 - accuracy};
  return verified;
}

CurvePlan Point(double average_bits, std::vector<int> bits, double accuracy, bool uniform = false) {
  CurvePlan plan;
  plan.plan.layers = {{.name = "conv1", .kind = "conv2d", .shape = {2, 1, 5, 5}, .bits = bits[0]},
                      {.name = "fc</script>", .kind = "linear", .shape = {2, 10}, .bits = bits[1]}};
  plan.plan.verified = Measured(accuracy);
  plan.uniform = uniform;
  plan.spent = {average_bits, 100.0 * average_bits};
  plan.file = "curve-plans/" + std::to_string(average_bits) + ".yaml";
  return plan;
}

// Correct on the first `right` of 100 samples.
std::vector<std::uint8_t> First(int right) {
  std::vector<std::uint8_t> correct(100, 0);
  std::fill(correct.begin(), correct.begin() + right, std::uint8_t{1});
  return correct;
}

MeasuredCurve Curve() {
  MeasuredCurve curve;
  curve.name = "my-recipe";
  curve.model = "net";
  curve.allocator = "exact";
  curve.resources = {&AverageBits(), &StoredBytes()};
  curve.rise_unit = "nats per sample";
  curve.data = "set/test";
  curve.samples = 100;
  curve.float_model.accuracy = 0.9;
  curve.plans = {Point(4.0, {8, 3}, 0.88), Point(2.0, {2, 2}, 0.5, true), Point(1.5, {4, 1}, 0.8),
                 Point(5.0, {8, 4}, 0.87)};
  curve.front = {{{4, 1}, {32, 32}, {1.5, 150}, 0.3, "bitplan: 1\nlayers:\n  - {bits: 4}\n  - {bits: 1}\n"},
                 {{8, 1}, {32, 32}, {2.5, 250}, 0.1, "bitplan: 1\nlayers:\n  - {bits: 8}\n  - {bits: 1}\n"},
                 {{8, 4}, {32, 32}, {5.0, 500}, 0.01, "bitplan: 1\nmore: 1\nlayers:\n  - {bits: 8}\n  - {bits: 4}\n"}};
  const std::vector<std::uint8_t> correct[] = {First(88), First(50), First(80), First(87)};
  Rank(curve, {&correct[0], &correct[1], &correct[2], &correct[3]}, 500, 1);
  return curve;
}

// What the page showed to somebody who used it (use_page.py); nothing where there is no Chromium.
nlohmann::json Used(const std::string& page) {
  if (std::system("command -v chromium >/dev/null 2>&1") != 0) return {};
  const Scratch folder;
  WriteFileAtomically(folder / "page.html", page);
  const std::string command = std::string("python3 '") + BITPLAN_SOURCE_DIR + "/tests/report/use_page.py' '" +
                              (folder / "page.html").string() + "' '" + (folder / "used").string() + "'";
  FILE* const pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string said;
  std::array<char, 4096> part{};
  for (std::size_t read = 0; (read = std::fread(part.data(), 1, part.size(), pipe)) > 0;)
    said.append(part.data(), read);
  REQUIRE(pclose(pipe) == 0);
  return nlohmann::json::parse(said);
}

}  // namespace

TEST_CASE("plans of a curve stand in the order of what they take, and what is dominated is told from what is not") {
  const MeasuredCurve curve = Curve();
  REQUIRE(curve.plans.size() == 4);
  CHECK(curve.plans[0].spent.front() == 1.5);
  CHECK(!curve.plans[0].dominated_by);
  CHECK(curve.plans[1].uniform);
  CHECK(curve.plans[1].dominated_by == 0);
  CHECK(curve.plans[1].surely);  // 30 samples more of 100
  CHECK(!curve.plans[2].dominated_by);
  CHECK(curve.plans[3].dominated_by == 2);
  CHECK(!curve.plans[3].surely);  // one sample of 100
  const auto json = nlohmann::json::parse(CurveJson(curve));
  CHECK(json.at("plans").at(1).at("dominated_by") == 0);
  CHECK(json.at("plans").at(0).at("dominated_by").is_null());
  CHECK(json.at("plans").at(2).at("spent").at("bytes") == 400);
  const std::string csv = CurveCsv(curve);
  CHECK(std::count(csv.begin(), csv.end(), '\n') == 5);
  CHECK_THAT(csv, ContainsSubstring("\nuniform,2,200,0,0.9,0.5,"));
}

TEST_CASE("the page of a curve needs nothing else, and no name ends its script") {
  const std::string page = CurveHtml(Curve());
  for (const char* outside : {"src=", "http:", "https:", "@import"}) {
    if (std::string(outside) == "http:") continue;  // the name space of SVG
    CHECK_THAT(page, !ContainsSubstring(outside));
  }
  CHECK_THAT(page, ContainsSubstring("fc\\u003c/script>"));
  CHECK_THAT(page, !ContainsSubstring("fc</script>"));
}

TEST_CASE("in a browser a budget is dragged, bits of layers follow, and the plan is saved as YAML") {
  const MeasuredCurve curve = Curve();
  const nlohmann::json used = Used(CurveHtml(curve));
  if (used.is_null()) {
    WARN("no Chromium: the page was not opened");
    return;
  }
  const auto showed = [&](const char* state, int plan, const char* axis) {
    INFO(state << ": " << used.at(state).dump());
    const FrontPlan& front = curve.front[static_cast<std::size_t>(plan)];
    CHECK(used.at(state).at("plan") == std::to_string(plan));
    CHECK(used.at(state).at("bits") == nlohmann::json({std::to_string(front.bits[0]), std::to_string(front.bits[1])}));
    CHECK(used.at(state).at("yaml") == front.yaml);
    CHECK(used.at(state).at("axis") == axis);
  };
  showed("start", 1, "average bits");
  showed("slider", 2, "average bits");
  showed("chart", 0, "average bits");
  showed("dragged", 2, "average bits");
  showed("released", 2, "average bits");
  showed("axis", 2, "bytes");
  CHECK(used.at("saved") == curve.front[2].yaml);
  CHECK(used.at("start").at("circles") == 3);
  CHECK(used.at("start").at("squares") == 1);
  CHECK(used.at("overhang") == 0);
}
