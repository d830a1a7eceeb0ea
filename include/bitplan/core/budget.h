// How much a plan may spend: a limit on one resource or on several, all of which hold.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bitplan/core/resource.h"

namespace bitplan {

struct Limit {
  std::reference_wrapper<const Resource> resource = AverageBits();
  double value = 3.0;  // in the resource's unit
};

struct Budget {
  Budget() : limits(1) {}
  Budget(const Resource& resource, double value) : limits{{resource, value}} {}

  // One or more, in the order of Resources(), no resource twice.
  std::vector<Limit> limits;

  // Of the resource, or null.
  [[nodiscard]] const Limit* Find(const Resource& resource) const;
  // Sets the limit of a resource, or adds it; the others stay.
  void Set(const Resource& resource, double value);
  // With average bits limited to `value`: in the place of the only limit, or of average bits beside other limits, which
  // hold. What `compare`, `sure` and curves ask for.
  [[nodiscard]] Budget WithAverageBits(double value) const;
  // With bit operations limited to `value`, in the place of average bits; other limits hold.
  [[nodiscard]] Budget WithBops(double value) const;
};

// The resource's name: "average_bits".
[[nodiscard]] std::string LimitName(const Limit& limit);

// "average_bits 3, bytes 200000", for people.
[[nodiscard]] std::string BudgetText(const Budget& budget);

}  // namespace bitplan
