#include "pipeline/drop_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/statistics.h"
#include "pipeline/front.h"
#include "pipeline/plan_parts.h"

namespace bitplan::pipeline {
namespace {

constexpr int kMostPlans = 5;         // that are quantized and measured
constexpr int kBracketing = 3;        // of them to find the boundary
constexpr int kBudgets = 129;         // at 1 to 8 bits a step is 1.6 %
constexpr double kNearEnough = 1.05;  // ratio of what two plans take between which nothing is looked for
constexpr std::int64_t kFewestImages = 200;

// What a plan loses on some of the calibration images, in images and as a share of them.
struct Loss {
  std::int64_t lost = 0, gained = 0, images = 0;

  [[nodiscard]] double value() const { return static_cast<double>(lost - gained) / static_cast<double>(images); }
  [[nodiscard]] double upper() const { return DropUpperBound(lost, gained, images); }
  // The bound that so many other images are expected to give.
  [[nodiscard]] double UpperOn(std::int64_t others) const {
    const double ratio = static_cast<double>(others) / static_cast<double>(images);
    return DropUpperBound(std::llround(ratio * static_cast<double>(lost)),
                          std::llround(ratio * static_cast<double>(gained)), others);
  }
};

Loss LossOn(const std::vector<std::uint8_t>& in_float, const std::vector<std::uint8_t>& in_plan, std::size_t begin,
            std::size_t end) {
  Loss loss;
  for (std::size_t i = begin; i < end; ++i) {
    loss.lost += in_float[i] > in_plan[i] ? 1 : 0;
    loss.gained += in_plan[i] > in_float[i] ? 1 : 0;
  }
  loss.images = static_cast<std::int64_t>(end - begin);
  return loss;
}

struct Tried {
  FrontPoint point;
  CorrectionMethod correction;
  Loss choosing, confirming;  // on the images that choose, and on the others
};

// The images that choose are the first third: they steer, and "auto" corrections are chosen on them.
class DropSearch {
 public:
  DropSearch(StageChain& chain, ProgressSink& progress)
      : chain_(chain),
        progress_(progress),
        bound_(*chain.recipe().allocate.drop / 100.0),
        resource_(ResourceToSpare(chain.recipe())),
        front_(chain, resource_, "allocate.budget.drop"),
        budgets_(front_.Budgets(kBudgets)),
        in_float_(chain.FloatOnCalibration()),
        choosing_(in_float_.correct.size() / 3) {}

  Plan Run() {
    Search();
    const Tried& found = Confirmed();
    auto options = chain_.recipe().allocate;
    options.budget = found.point.plan.budget;
    chain_.UseAllocation(options);
    Plan plan = found.point.plan;
    SetCorrection(plan, found.correction);
    plan.drop = PlanDrop{.at_most = Rounded(bound_, 6),
                         .smallest = resource_.name,
                         .data = in_float_.data,
                         .images = confirming(),
                         .value = Rounded(found.confirming.value(), 6),
                         .upper95 = Rounded(found.confirming.upper(), 6),
                         .plans = static_cast<std::int64_t>(tried_.size()),
                         .sha256 = CodesKey(plan)};
    return plan;
  }

 private:
  using Place = std::ptrdiff_t;  // among the budgets

  [[nodiscard]] std::int64_t confirming() const {
    return static_cast<std::int64_t>(in_float_.correct.size() - choosing_);
  }

  [[nodiscard]] Place last() const { return static_cast<Place>(budgets_.size()) - 1; }

  // The plan at a place; nothing where another limit of the recipe leaves none.
  const std::optional<FrontPoint>& At(Place place) {
    const auto found = points_.find(place);
    if (found != points_.end()) return found->second;
    std::optional<FrontPoint> point;
    try {
      point = front_.At(BudgetAt(place));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kInfeasible || place == last()) throw;
    }
    return points_.emplace(place, std::move(point)).first->second;
  }

  // The smallest place in (below, above) whose plan is predicted to lose at most `rise`, or the last one there.
  Place Predicted(double rise, Place below, Place above) {
    Place low = below + 1, high = above - 1;
    while (low < high) {
      const Place middle = low + (high - low) / 2;
      const auto& point = At(middle);
      if (point && point->solution.predicted_loss_rise <= rise) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  const Tried& Try(Place place) {
    const FrontPoint& point = *At(place);
    for (const Tried& tried : tried_) {
      if (SamePlan(tried.point, point)) return tried;
    }
    bool reused = false;
    const auto measured = chain_.MeasureOnCalibration(point.plan, static_cast<std::int64_t>(choosing_), reused);
    const auto& in_plan = measured.calibration.correct;
    Tried& tried =
        tried_.emplace_back(Tried{point, measured.correction, LossOn(in_float_.correct, in_plan, 0, choosing_),
                                  LossOn(in_float_.correct, in_plan, choosing_, in_plan.size())});
    progress_.Info(fmt::format("{} {}: drop {:.2f} points, at most {:.2f} expected", resource_.words,
                               FormatSpent(point), 100.0 * tried.choosing.value(),
                               100.0 * tried.choosing.UpperOn(confirming())));
    return tried;
  }

  static bool SamePlan(const FrontPoint& a, const FrontPoint& b) {
    return a.solution.bits == b.solution.bits && a.solution.activation_bits == b.solution.activation_bits;
  }

  [[nodiscard]] double SpentBy(const FrontPoint& point) const { return Spent(point.plan, resource_); }

  [[nodiscard]] std::string FormatSpent(const FrontPoint& point) const {
    return resource_.per_weight ? fmt::format("{:.3f}", SpentBy(point))
                                : Grouped(static_cast<std::int64_t>(SpentBy(point)));
  }

  [[nodiscard]] bool Holds(const Tried& tried) const { return tried.choosing.UpperOn(confirming()) <= bound_; }

  // Brackets the smallest plan that is expected to keep the bound, by the images that choose. What is lost is taken to
  // grow as the predicted rise does. The plans that are left are for the way back, should it fail on the other images.
  void Search() {
    Place below = -1, above = last() + 1;  // taken to fail, taken to hold
    double rise = 2.0 * bound_;            // of the first plan
    while (static_cast<int>(tried_.size()) < kBracketing && above - below > 1) {
      Place place = Predicted(rise, below, above);
      if (above <= last() && below >= 0 && (place == below + 1 || place == above - 1)) {
        place = below + (above - below) / 2;
      }
      while (place < last() && !At(place)) ++place;
      if (place >= above) {  // nothing fits below what holds
        below = place - 1;
        continue;
      }
      const std::size_t before = tried_.size();
      const Tried& tried = Try(place);
      const bool holds = Holds(tried);
      (holds ? above : below) = place;
      if (tried_.size() == before) continue;  // a plan that is known
      const double ratio = bound_ / std::max(tried.choosing.UpperOn(confirming()), bound_ / 16.0);
      rise = tried.point.solution.predicted_loss_rise * std::max(ratio, 1.0 / 16.0) * (holds ? 0.95 : 0.85);
      if (below >= 0 && above <= last() && BudgetAt(above) <= kNearEnough * BudgetAt(below)) break;
    }
    AddWidest();
    FillGaps();
  }

  // The order of tests begins with a plan of which the images that choose are sure by themselves. Where there is none
  // it begins with the widest plan.
  void AddWidest() {
    const auto sure = [&](const Tried& tried) { return tried.choosing.upper() <= bound_; };
    if (std::none_of(tried_.begin(), tried_.end(), sure)) (void)Try(last());
  }

  // What holds on the few images that choose may fail on the others: with the plans that are left the steps from the
  // largest plan that holds to the smallest become shorter.
  void FillGaps() {
    while (static_cast<int>(tried_.size()) < kMostPlans) {
      std::vector<double> spent;
      for (const Tried& tried : tried_) {
        if (Holds(tried)) spent.push_back(SpentBy(tried.point));
      }
      std::sort(spent.begin(), spent.end());
      double widest = kNearEnough, middle = 0.0;
      for (std::size_t i = 1; i < spent.size(); ++i) {
        if (spent[i] <= widest * spent[i - 1]) continue;
        widest = spent[i] / spent[i - 1];
        middle = std::sqrt(spent[i] * spent[i - 1]);
      }
      const auto place = std::lower_bound(budgets_.begin(), budgets_.end(), middle) - budgets_.begin();
      const std::size_t before = tried_.size();
      if (middle == 0.0 || !At(place)) return;
      (void)Try(place);
      if (tried_.size() == before) return;
    }
  }

  [[nodiscard]] double BudgetAt(Place place) const { return budgets_[static_cast<std::size_t>(place)]; }

  // In the order of what the plans take: the last before one fails on the images that did not choose them. A fixed
  // order of tests, each at 95 %, that ends at the first failure keeps 95 % for all of them together.
  const Tried& Confirmed() {
    std::sort(tried_.begin(), tried_.end(),
              [&](const Tried& a, const Tried& b) { return SpentBy(a.point) > SpentBy(b.point); });
    const Tried* found = nullptr;
    for (const Tried& tried : tried_) {
      if (tried.confirming.upper() > bound_) break;
      found = &tried;
    }
    if (found != nullptr) {
      if (found == &tried_.front() && tried_.size() > 1) {
        progress_.Warn(fmt::format(
            "the widest of the measured plans is taken: of the next, with {} {}, {} do not make sure that it loses at "
            "most {:g} points (at most {:.2f}); more calibration images may",
            FormatSpent(tried_[1].point), resource_.words,
            Counted(static_cast<std::int64_t>(in_float_.correct.size() - choosing_), "calibration image"),
            100.0 * bound_, 100.0 * tried_[1].confirming.upper()));
      }
      return *found;
    }
    throw Error(
        ErrorKind::kInfeasible,
        fmt::format("no plan surely loses at most {:g} points on {}: the widest of {} with {} {} may lose {:.2f}; ask "
                    "for a larger allocate.budget.drop, or give more calibration images than {}",
                    100.0 * bound_, in_float_.data, Counted(std::ssize(tried_), "measured plan"), resource_.words,
                    FormatSpent(tried_.front().point), 100.0 * tried_.front().confirming.upper(),
                    Counted(static_cast<std::int64_t>(in_float_.correct.size()), "image")));
  }

  StageChain& chain_;
  ProgressSink& progress_;
  double bound_;
  const Resource& resource_;
  Front front_;
  std::vector<double> budgets_;
  SplitMeasurement in_float_;
  std::size_t choosing_;  // the first of the calibration images, a third of them
  std::map<Place, std::optional<FrontPoint>> points_;
  std::vector<Tried> tried_;
};

}  // namespace

Plan SearchDrop(StageChain& chain, ProgressSink& progress) {
  const std::string& task = chain.recipe().data.task;
  if (!task.empty()) {
    throw Error(ErrorKind::kUsage, "allocate.budget.drop counts accuracy, and data.task is " + task +
                                       ": limit average_bits, bytes or another resource");
  }
  if (chain.CalibrationImages() < kFewestImages) {
    throw Error(ErrorKind::kUsage, fmt::format("allocate.budget.drop needs at least {} calibration images, and there "
                                               "are {}; give more, by data.calibration or data.calibration_images",
                                               kFewestImages, chain.CalibrationImages()));
  }
  return DropSearch(chain, progress).Run();
}

}  // namespace bitplan::pipeline
