// relaxed: the table as smooth curves, the budget as a continuous one, then rounding.
//
// 1. Fit. For every unit D_u(b) = a * 2^(-c b), c >= 0: in the high-resolution limit c is 2, at low widths and with
// errors
//    that act together it is not. Non-linear least squares (Ceres) on log2 D with the Cauchy loss, so that a single
//    width off the curve (a bad grid at two bits) does not bend it. Entries below 1e-12 of the row's largest count as
//    that.
// 2. Continuous optimum. Minimise sum_u a_u 2^(-c_u b_u) subject to sum_u p_u b_u <= budget between the narrowest and
// the
//    widest width, p_u the price of a bit (weights, or weights / 8 bytes; fixed costs are paid first). For a multiplier
//    lambda the answer is in closed form, b_u = log2(a_u c_u ln 2 / (lambda p_u)) / c_u, clipped; lambda by bisection.
//    Several limits have a multiplier each, and lambda p_u becomes their sum: one after another is bisected, round by
//    round, until every limit holds; the dual is concave and smooth between the clipped ends, so this ascends it.
// 3. Rounding. Every unit starts at the widest allowed width not above b_u; what is left is spent by marginal gain in
// the
//    table itself (SpendGreedily), as what is fitted is good enough for the direction and not for the last bit.
//
// The note states the continuous optimum and the error of the fit. The optimum is a bound on plans under the fitted
// curves, not under the table: a curve may lie above an entry. So no lower_bound is stated.
#include <ceres/ceres.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "allocators/select.h"

namespace bitplan {
namespace {

struct Curve {
  double log2_a = 0.0;
  double c = 0.0;
  std::vector<double> price{};      // [limits] of a bit, in the limit's measure
  std::vector<double> base_cost{};  // [limits] at the narrowest width
  double square_error = 0;          // of log2 D, summed over the widths
};

class LogResidual final : public ceres::SizedCostFunction<1, 1, 1> {
 public:
  LogResidual(double width, double log2_rise) : width_(width), log2_rise_(log2_rise) {}

  bool Evaluate(double const* const* parameters, double* residuals, double** jacobians) const override {
    residuals[0] = parameters[0][0] - parameters[1][0] * width_ - log2_rise_;
    if (jacobians != nullptr) {
      if (jacobians[0] != nullptr) jacobians[0][0] = 1.0;
      if (jacobians[1] != nullptr) jacobians[1][0] = -width_;
    }
    return true;
  }

 private:
  double width_, log2_rise_;
};

void Fit(const std::vector<int>& widths, const std::vector<double>& rises, Curve& curve) {
  const double largest = *std::max_element(rises.begin(), rises.end());
  curve.log2_a = curve.c = curve.square_error = 0.0;
  if (largest <= 0.0) {
    curve.log2_a = -1e3;  // nothing to lose at any width
    return;
  }
  std::vector<double> logs;
  for (const double rise : rises) logs.push_back(std::log2(std::max(rise, 1e-12 * largest)));
  curve.log2_a = logs.front();
  if (widths.size() == 1) return;
  curve.c = std::max(0.0, (logs.front() - logs.back()) / (widths.back() - widths.front()));
  curve.log2_a += curve.c * widths.front();

  constexpr double kOutlier = 0.5;  // log2: residuals of more than that count less and less
  ceres::CauchyLoss loss(kOutlier);
  ceres::Problem::Options ownership;
  ownership.loss_function_ownership = ceres::DO_NOT_TAKE_OWNERSHIP;
  ceres::Problem problem(ownership);
  for (std::size_t k = 0; k < widths.size(); ++k) {
    problem.AddResidualBlock(new LogResidual(widths[k], logs[k]), &loss, &curve.log2_a, &curve.c);
  }
  problem.SetParameterLowerBound(&curve.c, 0, 0.0);
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::DENSE_QR;
  options.logging_type = ceres::SILENT;
  options.max_num_iterations = 50;
  options.num_threads = 1;
  ceres::Solver::Summary summary;
  ceres::Solve(options, &problem, &summary);
  for (std::size_t k = 0; k < widths.size(); ++k) {
    const double residual = curve.log2_a - curve.c * widths[k] - logs[k];
    curve.square_error += residual * residual;
  }
}

constexpr double kLeastLog2 = -4000.0, kMostLog2 = 4000.0;  // of multipliers: beyond what doubles can state

// log2 of sum_r lambda_r p_r, the multipliers as their logarithms.
double LogPrice(const Curve& curve, const std::vector<double>& log2_lambda) {
  double most = 2.0 * kLeastLog2;
  for (std::size_t r = 0; r < log2_lambda.size(); ++r) {
    if (curve.price[r] > 0.0) most = std::max(most, log2_lambda[r] + std::log2(curve.price[r]));
  }
  double sum = 0.0;
  for (std::size_t r = 0; r < log2_lambda.size(); ++r) {
    if (curve.price[r] > 0.0) sum += std::exp2(log2_lambda[r] + std::log2(curve.price[r]) - most);
  }
  return sum > 0.0 ? most + std::log2(sum) : most;
}

double BestWidth(const Curve& curve, const std::vector<double>& log2_lambda, double narrowest, double widest) {
  if (curve.c <= 0.0) return narrowest;
  if (log2_lambda.size() == 1) {
    const double log2_gain = curve.log2_a + std::log2(curve.c * std::numbers::ln2 / curve.price.front());
    return std::clamp((log2_gain - log2_lambda.front()) / curve.c, narrowest, widest);
  }
  const double log2_gain = curve.log2_a + std::log2(curve.c * std::numbers::ln2) - LogPrice(curve, log2_lambda);
  return std::clamp(log2_gain / curve.c, narrowest, widest);
}

// Widths of the continuous optimum.
std::vector<double> Optimum(const std::vector<Curve>& curves, double narrowest, double widest,
                            const std::vector<double>& capacities) {
  std::vector<double> widths(curves.size()), log2_lambda(capacities.size(), kLeastLog2);
  const auto cost_of = [&](std::size_t r) {
    double cost = 0.0;
    for (std::size_t u = 0; u < curves.size(); ++u) {
      widths[u] = BestWidth(curves[u], log2_lambda, narrowest, widest);
      cost += curves[u].base_cost[r] + curves[u].price[r] * (widths[u] - narrowest);
    }
    return cost;
  };
  const auto bisect = [&](std::size_t r) {
    double low = kLeastLog2, high = kMostLog2;
    log2_lambda[r] = low;
    if (cost_of(r) <= capacities[r]) return;
    for (int i = 0; i < 80; ++i) {
      const double middle = 0.5 * (low + high);
      log2_lambda[r] = middle;
      (cost_of(r) > capacities[r] ? low : high) = middle;
    }
    log2_lambda[r] = high;
  };
  constexpr int kMostRounds = 30;
  constexpr double kSettled = 1e-6;  // log2
  const int rounds = capacities.size() == 1 ? 1 : kMostRounds;
  for (int round = 0; round < rounds; ++round) {
    const std::vector<double> before = log2_lambda;
    for (std::size_t r = 0; r < capacities.size(); ++r) bisect(r);
    double moved = 0.0;
    for (std::size_t r = 0; r < before.size(); ++r) moved = std::max(moved, std::abs(before[r] - log2_lambda[r]));
    if (moved < kSettled) break;
  }
  (void)cost_of(0);
  return widths;
}

// Lowers the widths that lose least per cost until the plan fits; the price of a bit is a chord, which a width 0
// without scales lies below. Of several limits those that are exceeded count.
void MakeFit(const AllocationProblem& problem, const Budget& budget, Room& room, std::vector<int>& chosen) {
  while (room.Over()) {
    std::size_t cheapest = chosen.size();
    double least = 0.0;
    for (std::size_t u = 0; u < chosen.size(); ++u) {
      if (chosen[u] == 0) continue;
      double freed = 0.0;
      for (std::size_t r = 0; r < budget.limits.size(); ++r) {
        if (room.left(r) >= 0) continue;
        const Resource& resource = budget.limits[r].resource;
        freed += static_cast<double>(Cost(problem.units[u], problem.widths[chosen[u]], resource) -
                                     Cost(problem.units[u], problem.widths[chosen[u] - 1], resource)) /
                 (budget.limits.size() == 1 ? 1.0 : static_cast<double>(-room.left(r)));
      }
      const double ratio = (problem.loss_rise[u][chosen[u] - 1] - problem.loss_rise[u][chosen[u]]) /
                           (budget.limits.size() == 1 ? std::max(freed, 1.0) : std::max(freed, 1e-12));
      if (cheapest == chosen.size() || ratio < least) {
        cheapest = u;
        least = ratio;
      }
    }
    room.Move(cheapest, chosen[cheapest], chosen[cheapest] - 1);
    --chosen[cheapest];
  }
}

}  // namespace

Allocation AllocateRelaxed(const AllocatorInputs& inputs) {
  const AllocationProblem& problem = inputs.problem;
  const std::vector<Limit>& limits = inputs.budget.limits;
  const double narrowest = problem.widths.front(), widest = problem.widths.back();
  std::vector<double> capacities;
  for (const Limit& limit : limits) capacities.push_back(static_cast<double>(Capacity(problem, limit)));

  std::vector<Curve> curves(problem.units.size());
  double square_error = 0.0;
  for (std::size_t u = 0; u < curves.size(); ++u) {
    const Unit& unit = problem.units[u];
    for (const Limit& limit : limits) {
      const double base = static_cast<double>(Cost(unit, problem.widths.front(), limit.resource));
      const double range = static_cast<double>(Cost(unit, problem.widths.back(), limit.resource)) - base;
      curves[u].base_cost.push_back(base);
      curves[u].price.push_back(widest > narrowest ? range / (widest - narrowest) : 1.0);
    }
    Fit(problem.widths, problem.loss_rise[u], curves[u]);
    square_error += curves[u].square_error;
  }
  const std::vector<double> widths = Optimum(curves, narrowest, widest, capacities);

  double continuous = 0.0;
  std::vector<int> chosen;
  for (std::size_t u = 0; u < curves.size(); ++u) {
    continuous += std::exp2(curves[u].log2_a - curves[u].c * widths[u]);
    constexpr double kRounding = 1e-9;
    const auto above = std::upper_bound(problem.widths.begin(), problem.widths.end(), widths[u] + kRounding,
                                        [](double value, int width) { return value < static_cast<double>(width); });
    chosen.push_back(std::max(0, static_cast<int>(above - problem.widths.begin()) - 1));
  }
  Room room(problem, inputs.budget, chosen);
  MakeFit(problem, inputs.budget, room, chosen);
  Room rest(problem, inputs.budget, chosen);
  SpendGreedily(problem, rest, chosen);

  Allocation result = MakeAllocation(problem, inputs.budget, chosen);
  const auto entries = static_cast<double>(curves.size() * problem.widths.size());
  result.note = fmt::format(
      "continuous optimum of the fitted curves {:.6g} nats; fit is off by {:.3f} bits (root mean square of log2)",
      continuous, std::sqrt(square_error / entries));
  return result;
}

}  // namespace bitplan
