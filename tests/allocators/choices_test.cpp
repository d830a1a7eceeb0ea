// Choices of any kind within several limits, with and without units that must agree.
#include <algorithm>
#include <cmath>
#include <map>

#include "bitplan/allocators/allocator.h"
#include "bitplan/allocators/choices.h"
#include "bitplan/core/error.h"
#include "bitplan/core/random.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
const char* const kMethods[] = {"exact", "lagrangian", "greedy", "random", "uniform"};

bool Keeps(const ChoiceProblem& problem, const std::vector<int>& chosen) {
  std::map<std::string, int> part;
  for (std::size_t u = 0; u < chosen.size(); ++u) {
    const std::string& shared = problem.units[u].shared;
    if (shared.empty()) continue;
    const int own = problem.units[u].choices.at(static_cast<std::size_t>(chosen[u])).part;
    if (part.emplace(shared, own).first->second != own) return false;
  }
  for (std::size_t r = 0; r < problem.limits.size(); ++r) {
    std::int64_t cost = 0;
    for (std::size_t u = 0; u < chosen.size(); ++u) {
      cost += problem.units[u].choices.at(static_cast<std::size_t>(chosen[u])).cost[r];
    }
    if (cost > problem.limits[r].capacity) return false;
  }
  return true;
}

// Least loss rise over every plan; infinite when none fits.
double TryEverything(const ChoiceProblem& problem) {
  double best = kInfinite;
  std::vector<int> chosen(problem.units.size(), 0);
  for (;;) {
    double rise = 0.0;
    for (std::size_t u = 0; u < chosen.size(); ++u) {
      rise += problem.units[u].choices[static_cast<std::size_t>(chosen[u])].loss_rise;
    }
    if (rise < best && Keeps(problem, chosen)) best = rise;
    std::size_t u = 0;
    while (u < chosen.size() && ++chosen[u] == static_cast<int>(problem.units[u].choices.size())) chosen[u++] = 0;
    if (u == chosen.size()) return best;
  }
}

// Choices without any order: rises and costs drawn by themselves. `links`: units that share a part, in pairs.
ChoiceProblem Unordered(RandomStream& stream, int units, int choices, int limits, bool links) {
  ChoiceProblem problem;
  for (int u = 0; u < units; ++u) {
    ChoiceUnit& unit = problem.units.emplace_back();
    unit.name = "layer" + std::to_string(u);
    if (links && u < units - 1) unit.shared = "tensor" + std::to_string(u / 2);
    for (int k = 0; k < choices; ++k) {
      Choice& choice = unit.choices.emplace_back();
      choice.format = {2 + k % 3, 4 + k / 3};
      choice.part = k % 2;
      choice.loss_rise = stream.Index(4) == 0 ? static_cast<double>(stream.Index(4)) : stream.Uniform(-1.0, 5.0);
      for (int r = 0; r < limits; ++r) choice.cost.push_back(static_cast<std::int64_t>(stream.Index(30)));
    }
  }
  for (int r = 0; r < limits; ++r) {
    problem.limits.push_back(
        {"limit" + std::to_string(r), static_cast<std::int64_t>(units * 8 + static_cast<int>(stream.Index(30)))});
  }
  return problem;
}

// Weight and activation widths as a network has them: sizes of very different layers, three resources.
ChoiceProblem Pairs(std::uint64_t seed, int units, double share, int linked = 0) {
  RandomStream stream(seed, "test/pairs");
  ChoiceProblem problem;
  problem.limits = {{"bytes", 0}, {"bit operations", 0}, {"activation bytes", 0}};
  std::vector<double> low(3, 0.0), high(3, 0.0);
  for (int u = 0; u < units; ++u) {
    ChoiceUnit& unit = problem.units.emplace_back();
    unit.name = "layer" + std::to_string(u);
    if (linked > 0) unit.shared = "tensor" + std::to_string(u / linked);
    const double weights = std::exp2(stream.Uniform(8.0, 20.0)), macs = weights * std::exp2(stream.Uniform(0.0, 10.0)),
                 read = std::exp2(stream.Uniform(8.0, 18.0)), one = stream.Uniform(-3.0, 6.0),
                 other = stream.Uniform(-3.0, 6.0);
    for (int w = 2; w <= 8; ++w) {
      for (int a = 2; a <= 8; ++a) {
        const double rise = 1e-6 * weights *
                            (std::exp2(2.0 * (one - w) + stream.Uniform(-0.5, 0.5)) +
                             std::exp2(2.0 * (other - a) + stream.Uniform(-0.5, 0.5)));
        unit.choices.push_back(
            {{w, a}, rise, {std::llround(weights * w / 8), std::llround(macs * w * a), std::llround(read * a / 8)}, a});
      }
    }
    for (std::size_t r = 0; r < 3; ++r) {
      low[r] += static_cast<double>(unit.choices.front().cost[r]);
      high[r] += static_cast<double>(unit.choices.back().cost[r]);
    }
  }
  for (std::size_t r = 0; r < 3; ++r) {
    problem.limits[r].capacity =
        std::llround(low[r] + share * (1.0 + 0.1 * static_cast<double>(r)) * (high[r] - low[r]));
  }
  return problem;
}

std::string Refusal(const ChoiceProblem& problem, const char* method, ErrorKind kind) {
  try {
    (void)SolveChoices(problem, {.method = method});
  } catch (const Error& error) {
    CHECK(error.kind() == kind);
    return error.what();
  }
  FAIL("no error");
  return "";
}

// Two units, two limits: each can be met by giving up the other.
ChoiceProblem Fighting() {
  ChoiceProblem problem;
  problem.limits = {{"bytes", 10}, {"bit operations", 10}};
  for (const char* name : {"one", "two"}) {
    problem.units.push_back({name, {{{2, 8}, 1.0, {2, 8}}, {{8, 2}, 1.0, {8, 2}}, {{4, 4}, 1.0, {7, 7}}}});
  }
  problem.limits[1].capacity = 9;
  return problem;
}

}  // namespace

TEST_CASE("exact finds what trying everything finds: one to three limits, linked units and unlinked ones") {
  int infeasible = 0, solved = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    RandomStream stream(seed, "test/choices");
    const int limits = 1 + static_cast<int>(seed % 3);
    const ChoiceProblem problem = Unordered(stream, 5, 6, limits, seed % 2 == 1);
    CAPTURE(seed, limits);
    const double best = TryEverything(problem);
    if (best == kInfinite) {
      ++infeasible;
      for (const char* method : kMethods) CHECK_FALSE(Refusal(problem, method, ErrorKind::kInfeasible).empty());
      continue;
    }
    ++solved;
    const ChoiceSolution exact = SolveChoices(problem);
    CHECK(Keeps(problem, exact.chosen));
    CHECK(exact.proven);
    CHECK(exact.loss_rise == Approx(best).margin(1e-9));
    CHECK(exact.lower_bound == exact.loss_rise);
    const ChoiceSolution relaxed = SolveChoices(problem, {.method = "lagrangian"});
    CHECK(relaxed.has_bound);
    CHECK(relaxed.lower_bound <= best + 1e-9);
  }
  CHECK(infeasible > 20);
  CHECK(solved > 200);
}

TEST_CASE("every method keeps all limits, makes linked units agree and states true costs") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const ChoiceProblem problem = Pairs(seed, 12, 0.05 + 0.01 * static_cast<double>(seed), static_cast<int>(seed % 4));
    const double best = SolveChoices(problem).loss_rise;
    for (const char* method : kMethods) {
      CAPTURE(seed, std::string(method));
      const ChoiceSolution answer = SolveChoices(problem, {.method = method, .seed = seed});
      CHECK(Keeps(problem, answer.chosen));
      double rise = 0.0;
      std::vector<std::int64_t> cost(3, 0);
      for (std::size_t u = 0; u < problem.units.size(); ++u) {
        const Choice& choice = problem.units[u].choices[static_cast<std::size_t>(answer.chosen[u])];
        rise += choice.loss_rise;
        for (std::size_t r = 0; r < 3; ++r) cost[r] += choice.cost[r];
      }
      CHECK(answer.cost == cost);
      CHECK(answer.loss_rise == Approx(rise));
      CHECK(answer.loss_rise >= best * (1.0 - 1e-9));
      CHECK(answer.chosen == SolveChoices(problem, {.method = method, .seed = seed}).chosen);
    }
    const ChoiceSolution uniform = SolveChoices(problem, {.method = "uniform"});
    for (std::size_t u = 1; u < problem.units.size(); ++u) CHECK(uniform.chosen[u] == uniform.chosen[0]);
  }
}

TEST_CASE("greedy comes near the optimum of pairs, and random does not") {
  double greedy = 0.0, random = 0.0, exact = 0.0;
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const ChoiceProblem problem = Pairs(seed, 30, 0.3);
    exact += std::log2(SolveChoices(problem).loss_rise);
    greedy += std::log2(SolveChoices(problem, {.method = "greedy"}).loss_rise);
    random += std::log2(SolveChoices(problem, {.method = "random", .seed = seed}).loss_rise);
  }
  CHECK(greedy - exact < 10.0);  // mean over the ten: less than a factor of two
  CHECK(random - exact > 10.0);
}

TEST_CASE("exact proves a hundred units with 49 choices under three limits, linked in fours too") {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    for (const int linked : {0, 4}) {
      const ChoiceSolution answer = SolveChoices(Pairs(seed, 100, 0.1 + 0.15 * static_cast<double>(seed), linked));
      CAPTURE(seed, linked, answer.states);
      CHECK(answer.proven);
      CHECK(answer.gap() == 0.0);
    }
  }
}

TEST_CASE("a thousand units with 49 choices under three limits come within a thousandth of the bound") {
  const ChoiceProblem problem = Pairs(1, 1000, 0.1);
  const ChoiceSolution answer = SolveChoices(problem, {.state_limit = 20'000'000});
  CHECK(Keeps(problem, answer.chosen));
  CHECK(answer.gap() < 1e-3);
}

TEST_CASE("where the search is stopped the bound still holds and nothing is called proven") {
  int stopped = 0;
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const ChoiceProblem problem = Pairs(seed, 40, 0.3, seed % 2 == 0 ? 0 : 3);
    const ChoiceSolution full = SolveChoices(problem);
    REQUIRE(full.proven);
    for (const std::int64_t limit : {std::int64_t{0}, std::int64_t{100'000}, std::int64_t{400'000}}) {
      const ChoiceSolution partial = SolveChoices(problem, {.state_limit = limit});
      CHECK(Keeps(problem, partial.chosen));
      CHECK(partial.lower_bound <= full.loss_rise * (1.0 + 1e-12));
      CHECK(partial.loss_rise >= full.loss_rise * (1.0 - 1e-12));
      CHECK(partial.proven == (partial.gap() == 0.0));
      stopped += partial.proven ? 0 : 1;
    }
  }
  CHECK(stopped > 10);
}

TEST_CASE("the prices of the limits say what more of them is worth") {
  ChoiceProblem problem = Pairs(5, 300, 0.3);
  const ChoiceSolution here = SolveChoices(problem, {.method = "lagrangian"});
  int binding = 0;
  for (std::size_t r = 0; r < 3; ++r) {
    if (here.prices[r] == 0.0) continue;
    ++binding;
    ChoiceProblem more = problem;
    const auto step = static_cast<std::int64_t>(0.01 * static_cast<double>(problem.limits[r].capacity));
    more.limits[r].capacity += step;
    const double gain = here.lower_bound - SolveChoices(more, {.method = "lagrangian"}).lower_bound;
    CHECK(gain / static_cast<double>(step) == Approx(here.prices[r]).epsilon(0.2));
  }
  CHECK(binding >= 2);
}

TEST_CASE(
    "limits that can be met alone and not together are named, each with the nearest value that goes with the rest") {
  const ChoiceProblem problem = Fighting();
  const std::string message = Refusal(problem, "exact", ErrorKind::kInfeasible);
  CAPTURE(message);
  CHECK_THAT(message, ContainsSubstring("the limits 10 bytes and 9 bit operations can be met alone but not together"));
  CHECK_THAT(message, ContainsSubstring("bytes at 15 goes with the others"));
  CHECK_THAT(message, ContainsSubstring("bit operations at 10 goes with the others"));
  CHECK(message.find('\n') == std::string::npos);
  ChoiceProblem nearest = problem;
  nearest.limits[0].capacity = 15;
  CHECK_NOTHROW(SolveChoices(nearest));
  nearest.limits[0].capacity = 14;
  CHECK_THROWS_AS(SolveChoices(nearest), Error);
  nearest = problem;
  nearest.limits[1].capacity = 10;
  CHECK_NOTHROW(SolveChoices(nearest));
}

TEST_CASE("one limit that no plan meets is named alone, with what the cheapest plan needs") {
  ChoiceProblem problem = Fighting();
  problem.limits[1].capacity = 3;
  const std::string message = Refusal(problem, "greedy", ErrorKind::kInfeasible);
  CHECK(message == "the limit of 3 bit operations cannot be met: the cheapest plan needs 4");
  problem.units[0].shared = problem.units[1].shared = "input";
  for (Choice& choice : problem.units[0].choices) choice.part = 7;
  CHECK_THAT(Refusal(problem, "exact", ErrorKind::kInfeasible), ContainsSubstring("two shares 'input' with one"));
}

TEST_CASE("allocators that need an axis of widths refuse other choices in one line, and unknown ones are named") {
  const ChoiceProblem problem = Pairs(1, 4, 0.5);
  int refused = 0;
  for (const Allocator& allocator : Allocators()) {
    CAPTURE(allocator.name);
    if (!allocator.needs_widths) {
      CHECK(Keeps(problem, SolveChoices(problem, {.method = allocator.name}).chosen));
      continue;
    }
    ++refused;
    const std::string message = Refusal(problem, allocator.name, ErrorKind::kUsage);
    CHECK_THAT(message, ContainsSubstring(std::string("'") + allocator.name + "' needs one ordered axis of widths"));
    CHECK(message.find('\n') == std::string::npos);
  }
  CHECK(refused == 7);
  CHECK_THAT(Refusal(problem, "exakt", ErrorKind::kUsage), ContainsSubstring("exact"));
}

TEST_CASE("a choice problem that contradicts itself is refused with the field") {
  const auto complaint = [](auto change) {
    ChoiceProblem problem = Pairs(1, 2, 0.5);
    change(problem);
    return Refusal(problem, "exact", ErrorKind::kInternal);
  };
  CHECK_THAT(complaint([](ChoiceProblem& p) { p.units.clear(); }), ContainsSubstring("units is empty"));
  CHECK_THAT(complaint([](ChoiceProblem& p) { p.limits.clear(); }), ContainsSubstring("limits is empty"));
  CHECK_THAT(complaint([](ChoiceProblem& p) { p.limits[1].capacity = -1; }), ContainsSubstring("bit operations is -1"));
  CHECK_THAT(complaint([](ChoiceProblem& p) { p.units[1].choices.clear(); }),
             ContainsSubstring("units[1] (layer1) has no choice"));
  CHECK_THAT(complaint([](ChoiceProblem& p) { p.units[0].choices[3].cost.pop_back(); }),
             ContainsSubstring("units[0] (layer0).choices[3].cost has 2 entries for 3 limits"));
  CHECK_THAT(complaint([](ChoiceProblem& p) { p.units[0].choices[3].cost[0] = -5; }), ContainsSubstring("cost is -5"));
  CHECK_THAT(complaint([](ChoiceProblem& p) { p.units[0].choices[3].loss_rise = kInfinite; }),
             ContainsSubstring("loss_rise is not finite"));
}
