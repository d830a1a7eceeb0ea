#include "pipeline/drop_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/statistics.h"
#include "io/yaml_text.h"
#include "pipeline/checks.h"
#include "pipeline/front.h"
#include "pipeline/plan_parts.h"

namespace bitplan::pipeline {
namespace {

constexpr int kMostPlans = 5;         // that are quantized and measured
constexpr int kBudgets = 129;         // at 1 to 8 bits a step is 1.6 %
constexpr double kNearEnough = 1.02;  // ratio of budgets that ends the search
constexpr std::int64_t kFewestImages = 200;

// What a plan loses on some of the calibration images, as a share of them.
struct Loss {
  double value = 0.0, upper = 0.0;
};

Loss LossOn(const std::vector<std::uint8_t>& in_float, const std::vector<std::uint8_t>& in_plan, std::size_t begin,
            std::size_t end) {
  std::int64_t lost = 0, gained = 0;
  for (std::size_t i = begin; i < end; ++i) {
    lost += in_float[i] > in_plan[i] ? 1 : 0;
    gained += in_plan[i] > in_float[i] ? 1 : 0;
  }
  const auto images = static_cast<std::int64_t>(end - begin);
  return {static_cast<double>(lost - gained) / static_cast<double>(images), DropUpperBound(lost, gained, images)};
}

struct Tried {
  FrontPoint point;
  CorrectionMethod correction;
  Loss choosing, confirming;  // on the first and on the second half of the calibration images
};

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
        half_(in_float_.correct.size() / 2) {}

  DropAnswer Run() {
    Search();
    const Tried& found = Confirmed();
    chain_.UseAllocation(WithBudget(found.point.plan.budget));
    DropAnswer answer{.plan = found.point.plan, .allocate_ms = allocate_ms_};
    SetCorrection(answer.plan, found.correction);
    answer.plan.drop = PlanDrop{.at_most = Rounded(bound_, 6),
                                .smallest = resource_.name,
                                .data = in_float_.data,
                                .images = static_cast<std::int64_t>(in_float_.correct.size() - half_),
                                .value = Rounded(found.confirming.value, 6),
                                .upper95 = Rounded(found.confirming.upper, 6),
                                .plans = static_cast<std::int64_t>(tried_.size())};
    return answer;
  }

 private:
  using Place = std::ptrdiff_t;  // among the budgets

  [[nodiscard]] Place last() const { return static_cast<Place>(budgets_.size()) - 1; }

  // The plan at a place; nothing where another limit of the recipe leaves none.
  const std::optional<FrontPoint>& At(Place place) {
    const auto found = points_.find(place);
    if (found != points_.end()) return found->second;
    std::optional<FrontPoint> point;
    try {
      point = front_.At(budgets_[static_cast<std::size_t>(place)]);
      allocate_ms_ = point->solution.allocate_ms;
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
    const auto measured = chain_.MeasureOnCalibration(point.plan, static_cast<std::int64_t>(half_), reused);
    const auto& in_plan = measured.calibration.correct;
    Tried& tried = tried_.emplace_back(Tried{point, measured.correction, LossOn(in_float_.correct, in_plan, 0, half_),
                                             LossOn(in_float_.correct, in_plan, half_, in_plan.size())});
    progress_.Info(fmt::format("drop {:.2f} points, at most {:.2f}: {} {}", 100.0 * tried.choosing.value,
                               100.0 * tried.choosing.upper, resource_.words, FormatSpent(point)));
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

  // Brackets the smallest plan that keeps the bound on the first half of the images. The loss in points is taken to
  // grow as the predicted rise does.
  void Search() {
    Place below = -1, above = last() + 1;  // taken to fail, taken to hold
    double rise = 2.0 * bound_;            // of the first plan
    while (static_cast<int>(tried_.size()) < kMostPlans && above - below > 1) {
      const bool none_holds = above > last();
      const int left = kMostPlans - static_cast<int>(tried_.size());
      Place place =
          none_holds && left == 1 ? last() : Predicted(none_holds && left == 2 ? rise / 8.0 : rise, below, above);
      if (!none_holds && below >= 0 && (place == below + 1 || place == above - 1)) place = below + (above - below) / 2;
      while (place < last() && !At(place)) ++place;
      const std::size_t before = tried_.size();
      const Tried& tried = Try(place);
      const bool holds = tried.choosing.upper <= bound_;
      (holds ? above : below) = place;
      if (tried_.size() == before) continue;  // a plan that is known
      const double ratio = bound_ / std::max(tried.choosing.upper, bound_ / 16.0);
      rise = tried.point.solution.predicted_loss_rise * std::max(ratio, 1.0 / 16.0) * (holds ? 0.95 : 0.85);
      const bool near =
          below >= 0 && above <= last() &&
          budgets_[static_cast<std::size_t>(above)] <= kNearEnough * budgets_[static_cast<std::size_t>(below)];
      if (near) break;
    }
  }

  // Of the plans that hold on the first half, in the order of what they take: the last before one fails on the second.
  // A fixed order of tests, each at 95 %, that ends at the first failure keeps 95 % for all of them together.
  const Tried& Confirmed() {
    std::vector<const Tried*> holding;
    const Tried* careful = &tried_.front();
    for (const Tried& tried : tried_) {
      if (tried.choosing.upper <= bound_) holding.push_back(&tried);
      if (SpentBy(tried.point) > SpentBy(careful->point)) careful = &tried;
    }
    std::sort(holding.begin(), holding.end(),
              [&](const Tried* a, const Tried* b) { return SpentBy(a->point) > SpentBy(b->point); });
    const Tried* found = nullptr;
    for (const Tried* tried : holding) {
      if (tried->confirming.upper > bound_) break;
      found = tried;
    }
    if (found != nullptr) return *found;
    const double kept = std::max(careful->choosing.upper, careful->confirming.upper);
    throw Error(
        ErrorKind::kInfeasible,
        fmt::format("no plan surely loses at most {:g} points on {}: that with {} {} may lose {:.2f}; ask for a "
                    "larger allocate.budget.drop, or give more data.calibration than {}",
                    100.0 * bound_, in_float_.data, resource_.words, FormatSpent(careful->point), 100.0 * kept,
                    Counted(static_cast<std::int64_t>(in_float_.correct.size()), "image")));
  }

  // The recipe's, with the budget at which the plan was found.
  [[nodiscard]] AllocateOptions WithBudget(const Budget& budget) const {
    auto options = chain_.recipe().allocate;
    options.budget = budget;
    return options;
  }

  StageChain& chain_;
  ProgressSink& progress_;
  double bound_;
  const Resource& resource_;
  Front front_;
  std::vector<double> budgets_;
  SplitMeasurement in_float_;
  std::size_t half_;
  std::map<Place, std::optional<FrontPoint>> points_;
  std::vector<Tried> tried_;
  double allocate_ms_ = 0.0;
};

}  // namespace

DropAnswer SearchDrop(StageChain& chain, ProgressSink& progress) {
  RequireClassification(chain.recipe(), "allocate.budget.drop");
  if (chain.CalibrationImages() < kFewestImages) {
    throw Error(ErrorKind::kUsage, fmt::format("allocate.budget.drop needs at least {} calibration images, and there "
                                               "are {}; set data.calibration",
                                               kFewestImages, chain.CalibrationImages()));
  }
  return DropSearch(chain, progress).Run();
}

}  // namespace bitplan::pipeline
