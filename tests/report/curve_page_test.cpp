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

// What a browser makes of the page after `script` has run in it; "" where there is no Chromium.
std::string InBrowser(const std::string& page, const std::string& script) {
  if (std::system("command -v chromium >/dev/null 2>&1") != 0) return "";
  const Scratch folder;
  WriteFileAtomically(folder / "page.html", page + "<script>" + script + "</script>");
  const std::string command =
      "env -u GLIBC_TUNABLES timeout -k 5 40 chromium --headless --no-sandbox --disable-gpu --user-data-dir='" +
      (folder / "profile").string() + "' --virtual-time-budget=2000 --dump-dom 'file://" +
      (folder / "page.html").string() + "' 2>/dev/null";
  FILE* const pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string dom;
  std::array<char, 4096> part{};
  for (std::size_t read = 0; (read = std::fread(part.data(), 1, part.size(), pipe)) > 0;) dom.append(part.data(), read);
  (void)pclose(pipe);  // on a busy machine Chromium may not end by itself once it has written the page
  return dom;
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
  // The slider to the last plan, a click in the chart at its left end, then the button; every state is kept.
  const std::string dom = InBrowser(CurveHtml(Curve()), R"(
const states = [];
const keep = (what) => states.push([what, document.body.dataset.plan,
  ...[...document.getElementById('layers').tBodies[0].rows].map((row) => row.cells[2].textContent.trim()),
  document.getElementById('plan').textContent]);
keep('start');
const slider = document.getElementById('budget');
slider.value = 2;
slider.dispatchEvent(new Event('input'));
keep('slider');
const chart = document.getElementById('chart'), box = chart.getBoundingClientRect();
chart.setPointerCapture = () => {};
chart.dispatchEvent(new PointerEvent('pointerdown', {clientX: box.left + 66 / 900 * box.width, clientY: box.top + 50}));
keep('chart');
const axis = document.getElementById('axis');
axis.value = 1;
axis.dispatchEvent(new Event('change'));
chart.dispatchEvent(new PointerEvent('pointerdown', {clientX: box.right - 2, clientY: box.top + 50}));
keep('bytes');
let saved = null;
const make = URL.createObjectURL;
URL.createObjectURL = (blob) => { saved = blob; return make.call(URL, blob); };
document.getElementById('save').click();
saved.text().then((text) => {
  const result = document.createElement('pre');
  result.id = 'result';
  result.textContent = JSON.stringify({states, saved: text, marks: chart.querySelectorAll('circle').length,
    squares: chart.querySelectorAll('rect').length});
  document.body.appendChild(result);
});
)");
  if (dom.empty()) {
    WARN("no Chromium: the page was not opened");
    return;
  }
  const auto begin = dom.find("<pre id=\"result\">");
  REQUIRE(begin != std::string::npos);
  const auto from = begin + std::string("<pre id=\"result\">").size();
  const auto result = nlohmann::json::parse(dom.substr(from, dom.find("</pre>", from) - from));
  const auto state = [&](int index, const char* what, const char* plan, const char* first, const char* second) {
    INFO(what);
    const auto& one = result.at("states").at(index);
    CHECK(one.at(0) == what);
    CHECK(one.at(1) == plan);
    CHECK(one.at(2) == first);
    CHECK(one.at(3) == second);
  };
  state(0, "start", "1", "8", "1");
  state(1, "slider", "2", "8", "4");
  state(2, "chart", "0", "4", "1");
  state(3, "bytes", "2", "8", "4");
  const auto& front = Curve().front;
  CHECK(result.at("states").at(0).at(4) == front[1].yaml);
  CHECK(result.at("saved") == front[2].yaml);
  CHECK(result.at("marks") == 3);
  CHECK(result.at("squares") == 1);
}
