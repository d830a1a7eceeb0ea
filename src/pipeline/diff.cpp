#include "bitplan/pipeline/diff.h"

#include <algorithm>

#include "bitplan/io/plan.h"

namespace bitplan::pipeline {
namespace {

constexpr int kWidestRounded = 8;

const PlanLayer* LayerOf(const Plan& plan, const std::string& name) {
  const auto found =
      std::find_if(plan.layers.begin(), plan.layers.end(), [&](const PlanLayer& one) { return one.name == name; });
  return found == plan.layers.end() ? nullptr : &*found;
}

bool SameChoice(const PlanLayer& one, const PlanLayer& other) {
  return one.bits == other.bits && one.grid == other.grid && one.range == other.range && one.shape == other.shape;
}

void CountBits(DiffReport& report, const PlanLayer& one, const PlanLayer& other) {
  if (one.bits > kWidestRounded || other.bits > kWidestRounded) return;
  const std::int64_t less = one.weights() * one.bits - other.weights() * other.bits;
  (less > 0 ? report.bits_taken : report.bits_given) += std::abs(less);
}

std::vector<std::string> NotesOn(const Plan& one, const Plan& other) {
  std::vector<std::string> notes;
  if (one.model.sha256 != other.model.sha256) {
    notes.push_back("the plans are for models of other weights (" + one.model.name + ", " + other.model.name +
                    "): their predictions and measurements are not of the same network");
  }
  if (one.verified && other.verified &&
      (one.verified->data != other.verified->data || one.verified->samples != other.verified->samples)) {
    notes.push_back("they were measured on other images: " + one.verified->data + ", " + other.verified->data);
  }
  if (!one.verified || !other.verified) {
    notes.push_back(std::string(!one.verified && !other.verified ? "neither plan is" : "one plan is not") +
                    " measured; `bitplan verify` does");
  }
  return notes;
}

}  // namespace

DiffReport DiffPlans(const std::filesystem::path& first, const std::filesystem::path& second) {
  DiffReport report;
  report.first_file = first;
  report.second_file = second;
  report.first = LoadPlan(first);
  report.second = LoadPlan(second);
  for (const PlanLayer& layer : report.first.layers) {
    const PlanLayer* const other = LayerOf(report.second, layer.name);
    if (other == nullptr) {
      report.layers.push_back({layer.name, layer.weights(), layer, std::nullopt});
      continue;
    }
    CountBits(report, layer, *other);
    if (SameChoice(layer, *other)) {
      ++report.same;
    } else {
      report.layers.push_back({layer.name, layer.weights(), layer, *other});
    }
  }
  for (const PlanLayer& layer : report.second.layers) {
    if (LayerOf(report.first, layer.name) == nullptr) {
      report.layers.push_back({layer.name, layer.weights(), std::nullopt, layer});
    }
  }
  report.notes = NotesOn(report.first, report.second);
  return report;
}

}  // namespace bitplan::pipeline
