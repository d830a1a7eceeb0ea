// What a command of the program prints as JSON.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/program.h"
#include "support/catch_torch.h"

namespace bitplan::test {

// Of a command that must succeed; --json is added where it is missing.
inline nlohmann::json ReportOf(const Workplace& place, std::vector<std::string> words) {
  if (std::find(words.begin(), words.end(), "--json") == words.end()) words.emplace_back("--json");
  const Outcome outcome = place.Bitplan(words);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  return nlohmann::json::parse(outcome.out);
}

}  // namespace bitplan::test
