#include "bitplan/core/budget.h"

#include <fmt/format.h>

#include <algorithm>

namespace bitplan {

const Limit* Budget::Find(const Resource& resource) const {
  const auto found = std::find_if(limits.begin(), limits.end(),
                                  [&](const Limit& limit) { return &limit.resource.get() == &resource; });
  return found == limits.end() ? nullptr : &*found;
}

void Budget::Set(const Resource& resource, double value) {
  std::erase_if(limits, [&](const Limit& limit) { return &limit.resource.get() == &resource; });
  const auto later =
      std::find_if(limits.begin(), limits.end(), [&](const Limit& limit) { return &limit.resource.get() > &resource; });
  limits.insert(later, {resource, value});
}

Budget Budget::WithAverageBits(double value) const {
  if (limits.size() < 2) return {AverageBits(), value};
  Budget budget = *this;
  budget.Set(AverageBits(), value);
  return budget;
}

Budget Budget::WithBops(double value) const {
  Budget budget = *this;
  std::erase_if(budget.limits, [](const Limit& limit) { return &limit.resource.get() == &AverageBits(); });
  budget.Set(FindResource("bops"), value);
  return budget;
}

std::string LimitName(const Limit& limit) { return limit.resource.get().name; }

std::string BudgetText(const Budget& budget) {
  std::string text;
  for (const Limit& limit : budget.limits) {
    text += fmt::format("{}{} {:g}", text.empty() ? "" : ", ", LimitName(limit), limit.value);
  }
  return text;
}

}  // namespace bitplan
