#include "bitplan/report/comparison.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "report/gnuplot.h"
#include "report/html.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

// Relative luminance of '#rrggbb' (WCAG 2).
double Luminance(const std::string& colour) {
  const double weights[] = {0.2126, 0.7152, 0.0722};
  double sum = 0.0;
  for (std::size_t i = 0; i < 3; ++i) {
    const double value = std::stoi(colour.substr(1 + 2 * i, 2), nullptr, 16) / 255.0;
    sum += weights[i] * (value <= 0.03928 ? value / 12.92 : std::pow((value + 0.055) / 1.055, 2.4));
  }
  return sum;
}

double Contrast(const std::string& light, const std::string& dark) {
  return (Luminance(light) + 0.05) / (Luminance(dark) + 0.05);
}

Comparison Small() {
  Comparison comparison;
  comparison.name = "my-recipe";
  comparison.model = "resnet20_cifar10";
  ComparedPlan plan;
  plan.allocator = "quantile-inform";
  plan.budget = {3.0};
  plan.bits = {8, 2};
  plan.note = std::string(600, 'n') + " pins {\"fc*\": 4} <b>";
  comparison.plans = {plan};
  comparison.layers = {{"conv1", 500, {}}, {"fc1", 400000, {}}};
  return comparison;
}

}  // namespace

TEST_CASE("every colour of a plot is legible on white, and there are as many as allocators") {
  CHECK(Contrast("#ffffff", "#000000") == Approx(21.0));
  CHECK(PlotColours().size() >= 14);
  CHECK(std::set<std::string>(PlotColours().begin(), PlotColours().end()).size() == PlotColours().size());
  for (const auto& colour : PlotColours()) {
    INFO(colour);
    CHECK(Contrast("#ffffff", colour) >= 3.0);
  }
  const auto header = GnuplotHeader("accuracy");
  for (const auto& colour : PlotColours()) CHECK_THAT(header, ContainsSubstring("lc rgb '" + colour + "'"));
}

TEST_CASE("every text colour of a report has a contrast of 4.5:1 to white and to the shade of tied rows") {
  const std::string page = HtmlPage("x", "");
  const std::regex text("[ {;]color: (#[0-9a-f]{3,6})");
  int count = 0;
  for (std::sregex_iterator it(page.begin(), page.end(), text), end; it != end; ++it, ++count) {
    std::string colour = (*it)[1];
    if (colour.size() == 4) colour = {'#', colour[1], colour[1], colour[2], colour[2], colour[3], colour[3]};
    INFO(colour);
    CHECK(Contrast("#ffffff", colour) >= 4.5);
    CHECK(Contrast("#eef6ee", colour) >= 4.5);
  }
  CHECK(count >= 4);
}

TEST_CASE("a report is titled by its recipe, and a long note wraps inside the page") {
  const std::string html = ComparisonHtml(Small(), {});
  CHECK_THAT(html, ContainsSubstring("<title>bitplan: my-recipe</title>"));
  CHECK_THAT(html, ContainsSubstring("<h1>my-recipe: plans for resnet20_cifar10</h1>"));
  const auto rule = html.find("td.note { white-space: normal");
  REQUIRE(rule != std::string::npos);
  CHECK_THAT(html.substr(rule, html.find('}', rule) - rule), ContainsSubstring("overflow-wrap: anywhere"));
  CHECK_THAT(html, ContainsSubstring("&lt;b&gt;") && !ContainsSubstring("<b>"));
}

namespace {

// Fields of one line of CSV; a quoted one may hold commas.
std::size_t FieldsOf(const std::string& line) {
  bool quoted = false;
  std::size_t fields = 1;
  for (const char c : line) {
    if (c == '"') quoted = !quoted;
    if (c == ',' && !quoted) ++fields;
  }
  return fields;
}

}  // namespace

TEST_CASE("table and report state the bytes of the whole network, and a plan that failed has as many columns") {
  Comparison comparison = Small();
  comparison.plans[0].achieved.stored_bytes = 12345;
  comparison.plans[0].achieved.network_bytes = 67890;
  comparison.recommended.budgets = {0};
  ComparedPlan none;
  none.allocator = "exact";
  none.failure = "the budget, alas, cannot be met";
  comparison.plans.push_back(none);
  std::istringstream csv(ComparisonCsv(comparison));
  std::string header, made, failed;
  std::getline(csv, header);
  std::getline(csv, made);
  std::getline(csv, failed);
  CHECK_THAT(header, ContainsSubstring(",average_bits,stored_bytes,network_bytes,accuracy,"));
  CHECK_THAT(made, ContainsSubstring(",12345,67890,"));
  CHECK(FieldsOf(made) == FieldsOf(header));
  CHECK(FieldsOf(failed) == FieldsOf(header));
  const std::string html = ComparisonHtml(comparison, {});
  CHECK_THAT(html, ContainsSubstring("<th>bytes of the whole network</th>") &&
                       ContainsSubstring("<td>12345</td><td>67890</td>"));
}

TEST_CASE("drops from the corrected float network stand beside the others where a correction changes it") {
  Comparison comparison = Small();
  comparison.recommended.budgets = {0};
  const std::string before = ComparisonHtml(comparison, {});
  CHECK_THAT(before, !ContainsSubstring("corrected"));
  CHECK(nlohmann::json::parse(ComparisonJson(comparison)).at("plans").at(0).at("drop_corrected").is_null());
  CHECK(PlansOfCorrectedFloats(comparison).empty());

  ComparedPlan transferred = comparison.plans[0], failed = comparison.plans[0];
  ComparedPlan& plan = comparison.plans[0];
  plan.correction = {"re-estimate", "fit"};
  plan.drop = {-0.0112, -0.02, -0.001, 0.04};
  plan.float_corrected = FloatCorrected{{0.8835, 0.3612, 0.17, 0.02}, {0.0125, 0.005, 0.02, 0.0625}};
  transferred.correction = {"transfer", "off"};
  failed.failure = "no";
  comparison.plans.insert(comparison.plans.end(), {comparison.plans[0], transferred, failed});
  CHECK(PlansOfCorrectedFloats(comparison) == std::vector<const ComparedPlan*>{&comparison.plans[0]});
  std::istringstream csv(ComparisonCsv(comparison));
  std::string header, lines[4];
  std::getline(csv, header);
  for (auto& line : lines) {
    std::getline(csv, line);
    CHECK(FieldsOf(line) == FieldsOf(header));
  }
  CHECK_THAT(header,
             ContainsSubstring(
                 ",drop_p,float_corrected,drop_corrected,drop_corrected_low,drop_corrected_high,drop_corrected_p,"));
  CHECK_THAT(lines[0], ContainsSubstring(",-0.0112,-0.02,-0.001,0.04,0.8835,0.0125,0.005,0.02,0.0625,"));
  CHECK_THAT(lines[2], ContainsSubstring(",1,,,,,,"));
  const auto json = nlohmann::json::parse(ComparisonJson(comparison));
  CHECK(json.at("plans").at(0).at("float_corrected").at("accuracy") == 0.8835);
  CHECK(json.at("plans").at(0).at("drop_corrected").at("ci95").at(1) == 0.02);
  CHECK(json.at("recommended").at("budgets").at(0).at("drop_corrected").at("value") == 0.0125);
  const std::string html = ComparisonHtml(comparison, {});
  CHECK_THAT(html, ContainsSubstring("re-estimate, outputs fit: 88.35 %, NLL 0.3612. Other"));
  const std::string cell =
      "<td>-1.12<br><small>[-2.00, -0.10]</small></td><td>+1.25<br><small>[+0.50, +2.00]</small></td>";
  const auto table = html.find("<h2>Budget");
  CHECK_THAT(html.substr(0, table), ContainsSubstring(cell));
  CHECK_THAT(html.substr(table), ContainsSubstring(cell) && ContainsSubstring("<td>the same</td>"));
  // As many cells as columns, in both tables.
  const auto count = [](const std::string& text, const std::string& what) {
    int found = 0;
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
    return found;
  };
  const auto rows = html.substr(table);
  CHECK(count(rows, "<td") == 3 * count(rows, "<th") + 2);
  CHECK_THAT(rows, ContainsSubstring("colspan=10"));
}

TEST_CASE("one bit, one sample and one point are counted in the singular in a report") {
  Comparison comparison = Small();
  comparison.samples = 1;
  comparison.plans[0].budget = {1.0};
  comparison.recommended.samples = 1;
  comparison.recommended.tolerance = 0.01;
  comparison.recommended.budgets = {0};
  const std::string html = ComparisonHtml(comparison, {});
  CHECK_THAT(html, ContainsSubstring("<h2>Budget 1 bit</h2>") && ContainsSubstring("<td>1 bit</td>") &&
                       ContainsSubstring(", 1 sample; float") && ContainsSubstring(", 1 sample. "));
  CHECK_THAT(html, ContainsSubstring("surely within 1 point<") && ContainsSubstring("at most 1 point of"));
  CHECK_THAT(html, !ContainsSubstring("1 bits") && !ContainsSubstring("1 samples") && !ContainsSubstring("1 points"));
}
