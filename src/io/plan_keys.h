// Every key of the plan format, stated once: the reader knows no others, and `bitplan help plan` prints them.
#pragma once

#include <string>
#include <vector>

#include "bitplan/core/options.h"

namespace bitplan {

inline constexpr int kPlanVersion = 1;

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

// The range of a layer that states none: the plan's, where that is one that every layer can have.
[[nodiscard]] std::string RangeUnlessStated(const QuantizerOptions& quantizer);

}  // namespace bitplan
