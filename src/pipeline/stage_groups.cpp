// Linear layers that read one tensor, as queries, keys and values do: runtimes compute them as one layer, in one
// format.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "bitplan/core/constraints.h"
#include "bitplan/core/counted.h"
#include "models/layer_reads.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

// Whether the recipe decides about a layer by itself.
bool IsDecided(const std::string& name, const AllocateOptions& options) {
  const auto matches = [&](const std::string& pattern) { return MatchesPattern(name, pattern); };
  const auto any = [&](const std::vector<std::string>& patterns) {
    return std::any_of(patterns.begin(), patterns.end(), matches);
  };
  return any(options.exclude) || std::any_of(options.groups.begin(), options.groups.end(), any) ||
         std::any_of(options.pins.begin(), options.pins.end(), [&](const Pin& pin) { return matches(pin.pattern); });
}

}  // namespace

void StageChain::GroupFused(const bitplan::Network& network) {
  if (groups_are_known_) return;
  groups_are_known_ = true;
  for (const std::vector<std::size_t>& readers : ReadersOfOneValue(network)) {
    std::vector<std::string> names;
    for (const std::size_t l : readers) {
      const Layer& layer = network.layers[l];
      const bool literal = layer.name.find_first_of("*?") == std::string::npos;
      if (layer.kind == "linear" && literal && !IsDecided(layer.name, recipe_.allocate)) names.push_back(layer.name);
    }
    if (names.size() < 2) continue;
    recipe_.allocate.groups.push_back(names);
    asked_.allocate.groups.push_back(names);
    fused_.push_back(std::move(names));
  }
}

std::string StageChain::FusedNote() const {
  std::vector<std::vector<std::string>> groups;  // a format may have no place for some of the layers
  for (std::vector<std::string> names : fused_) {
    std::erase_if(names, [&](const std::string& name) { return not_held_.contains(name); });
    if (names.size() > 1) groups.push_back(std::move(names));
  }
  if (groups.empty()) return "";
  const auto others = std::ssize(groups) - 1;
  return fmt::format(
      "{}{} read one tensor and share a width, as runtimes compute them; allocate.groups says otherwise",
      fmt::join(groups.front(), ", "),
      others == 0 ? std::string() : fmt::format(", and {} of linear layers more, each", Counted(others, "group")));
}

}  // namespace bitplan::pipeline
