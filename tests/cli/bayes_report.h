// What the tests of `bitplan bayes` share: a run, and rows of its report.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/program.h"
#include "support/catch_torch.h"

namespace bitplan::test {

inline nlohmann::json BayesReport(const Workplace& place, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"bayes", place.recipe(), "--out", "out", "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const auto outcome = place.Bitplan(arguments);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  return nlohmann::json::parse(outcome.out);
}

inline const nlohmann::json& RowOf(const nlohmann::json& report, const std::string& name) {
  for (const auto& row : report.at("rows")) {
    if (row.at("name") == name) return row;
  }
  FAIL("no row " + name);
  return report;
}

}  // namespace bitplan::test
