// Accuracy, or the score of another task, against what a plan takes, measured at a few budgets and predicted at many.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/core/plan.h"
#include "bitplan/core/resource.h"
#include "bitplan/core/statistics.h"

namespace bitplan {

// A measured plan of the curve.
struct CurvePlan {
  Plan plan;                  // verified
  bool uniform = false;       // one width for all layers
  std::vector<double> spent;  // [resources of the curve], in their units
  // Another measured plan that takes no more of the curve's resource and is no less accurate; empty: none, this one is
  // on the front.
  std::optional<std::size_t> dominated_by;
  bool surely = false;  // the paired 95 % interval of the two accuracies excludes 0
  std::string file;     // the plan as `verify --plan` takes it, relative to the output folder
};

// A plan that the solver found and nobody measured.
struct FrontPlan {
  std::vector<int> bits, activation_bits;  // [layers]
  std::vector<double> spent;               // [resources of the curve]
  double predicted_rise = 0.0;
  std::string yaml;  // the whole plan
};

struct MeasuredCurve {
  std::string name;  // of the recipe
  std::string model;
  std::string allocator;
  std::vector<const Resource*> resources;  // the one that the curve goes along first
  std::string rise_unit;                   // "nats per sample", or what a peer's metric counts
  std::string data;                        // "cifar10/test"
  std::int64_t samples = 0;
  std::string score = "accuracy";  // what the networks are compared by: a name of FigureKinds
  Metrics float_model;
  std::vector<CurvePlan> plans;  // ascending by the first resource
  std::vector<FrontPlan> front;  // likewise
  std::vector<std::string> notes;
};

// Sorts the plans and finds what dominates what. `outcomes`: of every plan, on the same samples, in the order of the
// plans before the call. `resamples` and `seed`: of the paired bootstrap.
void Rank(MeasuredCurve& curve, const std::vector<Outcomes>& outcomes, int resamples, std::uint64_t seed);

// "uniform" or the allocator.
[[nodiscard]] std::string MakerOf(const MeasuredCurve& curve, const CurvePlan& plan);

[[nodiscard]] std::string CurveCsv(const MeasuredCurve& curve);
[[nodiscard]] std::string CurveJson(const MeasuredCurve& curve);
// One self-contained page: the measured points, and a budget to drag, with the bits of every layer and the plan to
// save.
[[nodiscard]] std::string CurveHtml(const MeasuredCurve& curve);

struct CurveFiles {
  std::filesystem::path csv, json, html;
};
// curve.csv, curve.json and curve.html in `folder`. Error(kIo).
CurveFiles WriteCurve(const MeasuredCurve& curve, const std::filesystem::path& folder);

}  // namespace bitplan
