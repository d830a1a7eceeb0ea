// What a solver chooses among when a choice is more than one width: a list of opaque choices per unit, each with what
// it is expected to cost in loss and in every resource that has a limit.
//
//   minimise   sum_u loss_rise(u, x_u)              over one choice x_u per unit
//   subject to sum_u cost_r(u, x_u) <= capacity_r   for every limit r
//   and        part(u, x_u) = part(v, x_v)          for units u, v with the same `shared` name.
//
// The order of a unit's choices means nothing, and neither rise nor cost need follow any axis. The part is what linked
// units must agree on: layers that read the same tensor, say, share its width.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bitplan {

// Of the layers' weights and of what they read, in bits; kFloatBits (core/problem.h): left in float.
struct Format {
  int weights = 32;
  int activations = 32;

  friend bool operator==(const Format&, const Format&) = default;
};

// "W4A8".
[[nodiscard]] std::string FormatName(const Format& format);
// Of such a name. Error(kUsage) for anything else, and for widths outside 0..8 and 2..16; `key`: where it stands.
[[nodiscard]] Format ParseFormat(const std::string& name, const std::string& key);

struct Choice {
  Format format{};
  double loss_rise = 0.0;            // nats per sample, finite, of any sign
  std::vector<std::int64_t> cost{};  // one per limit, >= 0, in the measure of its capacity
  int part = 0;                      // of linked units only: the component that they must agree on
};

struct ChoiceUnit {
  std::string name;
  std::vector<Choice> choices;  // >= 1
  std::string shared{};  // units with the same name here agree on the part of their choices; empty: linked to none
};

struct ChoiceLimit {
  std::string name;  // "bytes", for messages; limits with one name are steps of one resource
  std::int64_t capacity = 0;
  std::int64_t base = 0;  // what no choice changes: messages add it to capacity and cost
};

struct ChoiceProblem {
  std::vector<ChoiceUnit> units;
  std::vector<ChoiceLimit> limits;  // >= 1

  // Throws Error(kInternal) that names the first inconsistent field.
  void Validate() const;
};

}  // namespace bitplan
