// Linear layers that read one tensor, as queries, keys and values do: runtimes compute them as one layer, in one
// format.
#include <fmt/format.h>

#include <algorithm>
#include <map>

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
  const std::vector<std::size_t> first = SharedInputs(network);
  std::map<std::size_t, std::vector<std::string>> members;  // by the first reader of what they read
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const Layer& layer = network.layers[l];
    const bool literal = layer.name.find_first_of("*?") == std::string::npos;
    if (layer.kind == "linear" && literal && !IsDecided(layer.name, recipe_.allocate)) {
      members[first[l]].push_back(layer.name);
    }
  }
  for (auto& [tensor, names] : members) {
    if (names.size() < 2) continue;
    recipe_.allocate.groups.push_back(names);
    asked_.allocate.groups.push_back(names);
    fused_.push_back(std::move(names));
  }
}

std::string StageChain::FusedNote() const {
  if (fused_.empty()) return "";
  const auto& names = fused_.front();
  const auto others = std::ssize(fused_) - 1;
  return fmt::format(
      "{}{} read one tensor and share a width, as runtimes compute them; allocate.groups says otherwise",
      fmt::join(names, ", "),
      others == 0 ? std::string() : fmt::format(", and {} more of linear layers, each", Counted(others, "group")));
}

}  // namespace bitplan::pipeline
