// Every key of the plan format, stated once: the reader knows no others, and `bitplan help plan` prints them.
#pragma once

#include <string>
#include <vector>

namespace bitplan {

struct PlanKey {
  const char* map;  // the map that holds it: "achieved", "layers[]"; "" for the root
  const char* key;
  bool required;
  const char* help;  // one phrase
};

// In the order of a file.
[[nodiscard]] const std::vector<PlanKey>& PlanKeys();

// Names of the required or the optional keys of a map. `path` may name one entry of a list: "layers[3]".
[[nodiscard]] std::vector<std::string> PlanKeysIn(const std::string& path, bool required);

}  // namespace bitplan
