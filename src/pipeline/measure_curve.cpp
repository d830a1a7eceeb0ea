#include "bitplan/pipeline/measure_curve.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/error.h"
#include "bitplan/core/statistics.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "pipeline/checks.h"
#include "pipeline/front.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

constexpr int kFrontPerPoint = 8;  // solved budgets from one measured budget to the next

class CurveMeasurer {
 public:
  CurveMeasurer(StageChain& chain, ProgressSink& progress)
      : chain_(chain),
        progress_(progress),
        resource_(ResourceToSpare(chain.recipe())),
        front_(chain, resource_, "a curve") {}

  MeasuredCurveReport Run() {
    const int points = chain_.recipe().curve.points;
    MeasuredCurveReport report;
    MeasuredCurve& curve = report.curve;
    Describe(curve);
    for (const FrontPoint& point : front_.Along(front_.Budgets(kFrontPerPoint * (points - 1) + 1))) {
      curve.front.push_back({BitsOf(point.plan), ActivationBitsOf(point.plan), SpentBy(point.plan),
                             point.solution.predicted_loss_rise, DumpPlan(point.plan)});
    }
    Collect(front_.Along(front_.Budgets(points)), false);
    if (chain_.recipe().curve.uniform) Collect(front_.Along(front_.Budgets(points), "uniform"), true);
    const auto is_uniform = [](const CurvePlan& plan) { return plan.uniform; };
    if (chain_.recipe().curve.uniform && std::none_of(plans_.begin(), plans_.end(), is_uniform)) {
      curve.notes.emplace_back(
          "no plan with one width for all layers is measured beside these: none fits the recipe, "
          "or each is among them");
    }
    if (plans_.empty()) {
      throw Error(ErrorKind::kInfeasible, "none of the curve's budgets can be met: " + front_.refusal());
    }
    const auto reference = chain_.MeasureFloat();
    curve.data = reference.verify.data;
    curve.samples = reference.verify.samples();
    curve.float_model = reference.verify.metrics;
    if (!curve.float_model.figures.empty()) curve.score = curve.float_model.figures.front().name;
    std::deque<SplitMeasurement> measurements;  // what outcomes refer to stays where it is
    std::vector<Outcomes> outcomes;
    std::size_t done = 0;
    for (CurvePlan& plan : plans_) {
      progress_.Info(fmt::format("plan {} of {}", ++done, plans_.size()));
      bool reused = false;
      auto measured = chain_.MeasureDraft(plan.plan, reused);
      report.measured += reused ? 0 : 1;
      SetCorrection(plan.plan, measured.correction);
      plan.plan.verified = chain_.PairedVerification(
          reference.verify, measured.verify, chain_.MeasureFloatCorrected(measured.correction, BitsOf(plan.plan)));
      outcomes.push_back(measurements.emplace_back(std::move(measured.verify)).outcomes());
    }
    NotePlans(curve);
    curve.plans = std::move(plans_);
    Rank(curve, outcomes, chain_.recipe().verify.bootstrap, chain_.recipe().seed);
    chain_.folder().WriteTogether([&](const std::filesystem::path& place) {
      WritePlans(curve, place);
      report.files = WriteCurve(curve, place);
      for (auto* file : {&report.files.csv, &report.files.json, &report.files.html}) {
        *file = chain_.folder().path() / file->lexically_relative(place);
      }
    });
    report.stages = chain_.statuses();
    return report;
  }

 private:
  void Describe(MeasuredCurve& curve) {
    curve.name = chain_.recipe().name;
    curve.model = chain_.Model().name;
    curve.allocator = chain_.recipe().allocate.allocator;
    curve.rise_unit = RiseUnit(chain_.MetricOf(FindAllocator(curve.allocator)));
    curve.resources = {&resource_};
    for (const Resource& resource : Resources()) {
      if (&resource != &resource_ && IsStated(resource)) curve.resources.push_back(&resource);
    }
    resources_ = curve.resources;
    if (chain_.recipe().verify.split == "calibration") {
      curve.notes.emplace_back("plans are measured on calibration images, by which corrections were chosen too");
    }
  }

  // Latency takes a table, and widths of weights do not change the peak of activations.
  [[nodiscard]] bool IsStated(const Resource& resource) const {
    const AllocateOptions& allocate = chain_.recipe().allocate;
    if (resource.kind == ResourceKind::kTimed) return !allocate.latency.empty();
    return resource.kind != ResourceKind::kPeak || allocate.activation_bits.size() > 1;
  }

  [[nodiscard]] std::vector<double> SpentBy(const Plan& plan) const {
    std::vector<double> spent;
    for (const Resource* resource : resources_) spent.push_back(RoundedToDigits(Spent(plan, *resource), 12));
    return spent;
  }

  // What can hardly be right, and where the curve begins later than its resource allows.
  void NotePlans(MeasuredCurve& curve) {
    std::vector<NamedPlan> named;
    for (const CurvePlan& plan : plans_) {
      named.push_back(
          {fmt::format("{} at {:g} {}", MakerOf(curve, plan), plan.spent.front(), resource_.words), plan.plan});
    }
    for (auto& note : OdditiesOfMany(named, chain_.Facts())) curve.notes.push_back(std::move(note));
    if (front_.infeasible() > 0) {
      curve.notes.push_back(fmt::format("below {:g} {} no plan keeps the recipe's other limits",
                                        front_.least_feasible(), resource_.words));
    }
  }

  // Plans with the same widths are measured once.
  void Collect(std::vector<FrontPoint> points, bool uniform) {
    for (FrontPoint& point : points) {
      const auto same = [&](const CurvePlan& known) {
        return BitsOf(known.plan) == BitsOf(point.plan) && ActivationBitsOf(known.plan) == ActivationBitsOf(point.plan);
      };
      if (std::any_of(plans_.begin(), plans_.end(), same)) continue;
      CurvePlan& plan = plans_.emplace_back();
      plan.spent = SpentBy(point.plan);
      plan.plan = std::move(point.plan);
      plan.uniform = uniform;
    }
  }

  void WritePlans(MeasuredCurve& curve, const std::filesystem::path& place) {
    const std::filesystem::path folder = "curve-plans";
    EnsureWritableFolder(place / folder);
    for (CurvePlan& plan : curve.plans) {
      const std::string spent =
          resource_.per_weight ? fmt::format("{:g}", plan.spent.front()) : fmt::format("{:.0f}", plan.spent.front());
      plan.file = (folder / fmt::format("{}-{}-{}.yaml", MakerOf(curve, plan), resource_.name, spent)).string();
      WriteFileAtomically(place / plan.file, DumpPlan(plan.plan));
    }
  }

  StageChain& chain_;
  ProgressSink& progress_;
  const Resource& resource_;
  Front front_;
  std::vector<const Resource*> resources_;
  std::vector<CurvePlan> plans_;
};

}  // namespace

MeasuredCurveReport MeasureCurve(const RecipeOptions& options, ProgressSink& progress) {
  StageChain chain(options, progress);
  // The curve goes through all budgets of its resource; a single limit is what the recipe's own plan may take.
  Budget others = chain.recipe().allocate.budget;
  const Resource& resource = ResourceToSpare(chain.recipe());
  std::erase_if(others.limits,
                [&](const Limit& limit) { return others.limits.size() == 1 || &limit.resource.get() == &resource; });
  chain.UseBudget(others);
  return CurveMeasurer(chain, progress).Run();
}

}  // namespace bitplan::pipeline
