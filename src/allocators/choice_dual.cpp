#include "allocators/choice_dual.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace bitplan::choices {
namespace {

// The master problem: a dense basis of limits + 1 columns and its inverse.
class Master {
 public:
  // `room`: right-hand sides of the limits. A limit that a plan breaks is paid for with `penalty` per unit.
  Master(const std::vector<double>& room, double penalty, double value, const std::vector<double>& cost, Pick pick)
      : rows_(room.size() + 1), penalty_(penalty), inverse_(rows_ * rows_, 0.0), amount_(room), columns_(rows_) {
    // The first plan has weight 1; slack, or what is paid for, makes up for the difference.
    const std::size_t last = rows_ - 1;
    for (std::size_t r = 0; r < last; ++r) {
      const double left = room[r] - cost[r];
      const double sign = left >= 0.0 ? 1.0 : -1.0;
      columns_[r] = {sign > 0.0 ? Kind::kSlack : Kind::kPaid, sign > 0.0 ? 0.0 : penalty, {}};
      inverse_[r * rows_ + r] = sign;
      inverse_[r * rows_ + last] = -sign * cost[r];
      amount_[r] = std::abs(left);
    }
    amount_.push_back(1.0);
    inverse_[last * rows_ + last] = 1.0;
    columns_[last] = {Kind::kPlan, value, std::move(pick)};
  }

  // Dual values: of the limits as prices >= 0 (up to rounding), last that of the weights.
  [[nodiscard]] std::vector<double> Duals() const {
    std::vector<double> duals(rows_, 0.0);
    for (std::size_t i = 0; i < rows_; ++i) {
      for (std::size_t j = 0; j < rows_; ++j) duals[j] += columns_[i].value * inverse_[i * rows_ + j];
    }
    for (std::size_t r = 0; r + 1 < rows_; ++r) duals[r] = -duals[r];
    return duals;
  }

  bool EnterSlack(std::size_t limit) { return Enter(Unit(limit, 1.0), {Kind::kSlack, 0.0, {}}); }
  bool EnterPaid(std::size_t limit) { return Enter(Unit(limit, -1.0), {Kind::kPaid, penalty_, {}}); }
  bool EnterPlan(double value, const std::vector<double>& cost, Pick pick) {
    std::vector<double> column = cost;
    column.push_back(1.0);
    return Enter(column, {Kind::kPlan, value, std::move(pick)});
  }

  [[nodiscard]] std::vector<std::pair<double, Pick>> Mixture() const {
    constexpr double kNothing = 1e-9;
    std::vector<std::pair<double, Pick>> mixture;
    for (std::size_t i = 0; i < rows_; ++i) {
      if (columns_[i].kind == Kind::kPlan && amount_[i] > kNothing) mixture.emplace_back(amount_[i], columns_[i].pick);
    }
    return mixture;
  }

 private:
  enum class Kind { kSlack, kPaid, kPlan };
  struct Column {
    Kind kind = Kind::kSlack;
    double value = 0.0;
    Pick pick;
  };

  [[nodiscard]] std::vector<double> Unit(std::size_t row, double entry) const {
    std::vector<double> column(rows_, 0.0);
    column[row] = entry;
    return column;
  }

  // False when no column can leave: rounding has the better of it.
  bool Enter(const std::vector<double>& column, Column entering) {
    std::vector<double> direction(rows_, 0.0);
    for (std::size_t i = 0; i < rows_; ++i) {
      for (std::size_t j = 0; j < rows_; ++j) direction[i] += inverse_[i * rows_ + j] * column[j];
    }
    constexpr double kPivot = 1e-11;
    std::size_t leaving = rows_;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < rows_; ++i) {
      if (direction[i] <= kPivot) continue;
      const double ratio = std::max(0.0, amount_[i]) / direction[i];
      if (ratio < least || (ratio == least && direction[i] > direction[leaving])) {
        least = ratio;
        leaving = i;
      }
    }
    if (leaving == rows_) return false;
    for (std::size_t j = 0; j < rows_; ++j) inverse_[leaving * rows_ + j] /= direction[leaving];
    amount_[leaving] = least;
    for (std::size_t i = 0; i < rows_; ++i) {
      if (i == leaving || direction[i] == 0.0) continue;
      for (std::size_t j = 0; j < rows_; ++j) {
        inverse_[i * rows_ + j] -= direction[i] * inverse_[leaving * rows_ + j];
      }
      amount_[i] -= direction[i] * least;
    }
    columns_[leaving] = std::move(entering);
    return true;
  }

  std::size_t rows_;
  double penalty_;
  std::vector<double> inverse_;  // [rows][rows]
  std::vector<double> amount_;   // of the columns in the basis
  std::vector<Column> columns_;
};

// Value and weighed cost of the plan that is least in a view.
double Totals(const Table& table, const View& view, std::vector<double>& cost) {
  const auto items = static_cast<std::size_t>(table.items());
  double value = 0.0;
  cost.assign(table.limits, 0.0);
  for (const int mode : view.best_mode) {
    for (int s = table.mode_begin[mode]; s < table.mode_begin[mode + 1]; ++s) {
      const auto item = static_cast<std::size_t>(view.best_item[s]);
      value += table.value[item];
      for (std::size_t r = 0; r < table.limits; ++r) cost[r] += table.weighed[r * items + item];
    }
  }
  return value;
}

// What values differ by, over all slots: the scale of prices.
double ValueRange(const Table& table) {
  double range = 0.0;
  for (int s = 0; s < table.slots(); ++s) {
    const auto begin = table.value.begin() + table.slot_begin[s], end = table.value.begin() + table.slot_begin[s + 1];
    const auto [least, most] = std::minmax_element(begin, end);
    range += *most - *least;
  }
  return std::max(range, 1e-300);
}

}  // namespace

Dual SolveDual(const Table& table, double cutoff, std::int64_t& states) {
  constexpr int kMostCuts = 400;
  constexpr double kDearest = 1e9;  // price that no limit is worth, in ranges of the value
  constexpr double kRounding = 1e-13;
  const std::size_t limits = table.limits;
  const double range = ValueRange(table);
  std::vector<double> room(limits), cost;
  for (std::size_t r = 0; r < limits; ++r) room[r] = table.scale[r] * static_cast<double>(table.room[r]);

  Dual dual;
  View view;
  const auto look = [&](const std::vector<double>& prices) {
    states += table.items();
    Evaluate(table, prices, view);
    if (dual.view.prices.empty() || view.bound > dual.bound) {
      dual.bound = view.bound;
      dual.view = view;
    }
  };
  look(std::vector<double>(limits, 0.0));
  const double first = Totals(table, view, cost);
  Master master(room, kDearest * range, first, cost, {view.best_mode, view.best_item});
  for (int cut = 0; cut < kMostCuts && dual.bound < cutoff; ++cut) {
    std::vector<double> prices = master.Duals();
    const double weight_price = prices.back();
    prices.pop_back();
    const auto [least, most] = std::minmax_element(prices.begin(), prices.end());
    if (*least < -kRounding * range) {
      if (!master.EnterSlack(static_cast<std::size_t>(least - prices.begin()))) break;
      continue;
    }
    if (*most > kDearest * range * (1.0 + kRounding)) {
      if (!master.EnterPaid(static_cast<std::size_t>(most - prices.begin()))) break;
      continue;
    }
    double paid = 0.0;
    for (std::size_t r = 0; r < limits; ++r) {
      prices[r] = std::max(0.0, prices[r]);
      paid += prices[r] * room[r];
    }
    look(prices);
    const double value = Totals(table, view, cost);
    double reduced = value - weight_price;
    for (std::size_t r = 0; r < limits; ++r) reduced += prices[r] * cost[r];
    if (reduced >= -kRounding * (std::abs(weight_price) + paid + range))
      break;  // no plan is below the master's optimum
    if (!master.EnterPlan(value, cost, {view.best_mode, view.best_item})) break;
  }
  dual.mixture = master.Mixture();
  return dual;
}

}  // namespace bitplan::choices
