// A likelihood whose optimum is known: the loss is a quadratic form of the rounding errors of a few weights per unit,
// and minibatches tilt it at random. Its table holds what every unit alone costs.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "allocators/problems.h"
#include "bitplan/core/likelihood_oracle.h"

namespace bitplan::testing {

class QuadraticOracle final : public LikelihoodOracle {
 public:
  // `coupling` 0: units do not interact and the table is the truth; 1: errors of different units act together as much
  // as those of one. `noise`: nats that a minibatch adds to or takes from the loss of a typical plan.
  QuadraticOracle(std::uint64_t seed, int units, std::vector<int> widths, double coupling, double noise)
      : stream_(seed, "test/oracle"), widths_(std::move(widths)), noise_(noise), tilt_(units) {
    std::vector<std::vector<double>> factors(units);  // curvature = factors' factors
    errors_.resize(units);
    problem_.widths = widths_;
    for (int u = 0; u < units; ++u) {
      Unit unit;
      unit.name = "unit" + std::to_string(u);
      unit.weights = 50 + static_cast<std::int64_t>(std::exp2(stream_.Uniform(5.0, 11.0)));
      unit.score_percentiles.assign(kPercentiles, stream_.Uniform(0.0, 4.0));
      names_.push_back(unit.name);
      problem_.units.push_back(unit);
      const double size = 0.3 * std::exp2(stream_.Uniform(-1.5, 1.5));
      std::vector<double> weights(kWeights);
      for (double& w : weights) w = size * stream_.Normal();
      for (const int bits : widths_) errors_[u].push_back(RoundingErrors(weights, bits));
      // Rows of the factor: a part that all units share, and one of the unit's own.
      for (int row = 0; row < kRows * (1 + units); ++row) {
        const int owner = row / kRows - 1;
        const double share = owner < 0 ? coupling : owner == u ? 1.0 - coupling : 0.0;
        for (int w = 0; w < kWeights; ++w) factors[u].push_back(std::sqrt(share) * stream_.Normal());
      }
    }
    // Projections of every error, of which the loss is half the squared sum.
    const int rows = kRows * (1 + units);
    for (int u = 0; u < units; ++u) {
      projections_.emplace_back();
      std::vector<double> rises;
      for (const auto& error : errors_[u]) {
        std::vector<double> projection(rows, 0.0);
        double rise = 0.0;
        for (int row = 0; row < rows; ++row) {
          for (int w = 0; w < kWeights; ++w) projection[row] += factors[u][row * kWeights + w] * error[w];
          rise += 0.5 * projection[row] * projection[row];
        }
        projections_[u].push_back(projection);
        rises.push_back(rise);
      }
      problem_.loss_rise.push_back(rises);
    }
    NextBatch();
  }

  [[nodiscard]] const AllocationProblem& problem() const { return problem_; }
  [[nodiscard]] const std::vector<std::string>& units() const override { return names_; }
  [[nodiscard]] const std::vector<int>& widths() const override { return widths_; }
  [[nodiscard]] int batches() const { return batches_; }

  void NextBatch() override {
    ++batches_;
    offset_ = 1.0 + noise_ * stream_.Normal();
    for (auto& row : tilt_) {
      row.resize(kWeights);
      for (double& g : row) g = noise_ * stream_.Normal();
    }
  }

  // Expectation over minibatches; a unit in float has no error.
  [[nodiscard]] double TrueLoss(const std::vector<int>& columns) const {
    std::vector<double> sum(projections_[0][0].size(), 0.0);
    for (std::size_t u = 0; u < columns.size(); ++u) {
      if (columns[u] == kFloatColumn) continue;
      for (std::size_t row = 0; row < sum.size(); ++row) sum[row] += projections_[u][columns[u]][row];
    }
    double loss = 1.0;
    for (const double value : sum) loss += 0.5 * value * value;
    return loss;
  }

  [[nodiscard]] double Loss(const std::vector<int>& columns) override {
    double loss = TrueLoss(columns) - 1.0 + offset_;
    for (std::size_t u = 0; u < columns.size(); ++u) {
      if (columns[u] != kFloatColumn) loss += Dot(tilt_[u], errors_[u][columns[u]]);
    }
    return loss;
  }

  [[nodiscard]] double LossAndGradient(const std::vector<std::vector<double>>& mixture,
                                       std::vector<std::vector<double>>& gradient) override {
    std::vector<double> sum(projections_[0][0].size(), 0.0);
    double loss = offset_;
    for (std::size_t u = 0; u < mixture.size(); ++u) {
      for (std::size_t k = 0; k < mixture[u].size(); ++k) {
        for (std::size_t row = 0; row < sum.size(); ++row) sum[row] += mixture[u][k] * projections_[u][k][row];
        loss += mixture[u][k] * Dot(tilt_[u], errors_[u][k]);
      }
    }
    for (const double value : sum) loss += 0.5 * value * value;
    gradient.resize(mixture.size());
    for (std::size_t u = 0; u < mixture.size(); ++u) {
      gradient[u].resize(mixture[u].size());
      for (std::size_t k = 0; k < mixture[u].size(); ++k) {
        gradient[u][k] = Dot(sum, projections_[u][k]) + Dot(tilt_[u], errors_[u][k]);
      }
    }
    return loss;
  }

  // The plan within the budget that minimises data_weight * loss + posterior_weight * table, by trying every plan.
  struct Optimum {
    double value = std::numeric_limits<double>::infinity();
    double second = std::numeric_limits<double>::infinity();
    std::vector<int> columns;
  };
  [[nodiscard]] Optimum Best(const Budget& budget, double data_weight, double posterior_weight) const {
    Optimum best;
    std::vector<int> columns(names_.size(), kFloatColumn);
    const std::vector<double> none(projections_[0][0].size(), 0.0);
    Search(budget.limits[0].resource, Capacity(problem_, budget.limits[0]), none, 0.0, {data_weight, posterior_weight},
           0, columns, best);
    return best;
  }

 private:
  static constexpr int kWeights = 6;
  static constexpr int kRows = 6;

  struct Factors {
    double data, posterior;
  };

  static double Dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  }

  static std::vector<double> RoundingErrors(const std::vector<double>& weights, int bits) {
    double largest = 0.0;
    for (const double w : weights) largest = std::max(largest, std::abs(w));
    std::vector<double> errors;
    const double step = 2.0 * largest / std::exp2(bits);  // levels at odd halves of a step
    for (const double w : weights) {
      const double highest = 0.5 * (std::exp2(bits) - 1.0);
      const double level = std::clamp(std::floor(w / step) + 0.5, -highest, highest);
      errors.push_back(bits == 0 ? -w : level * step - w);
    }
    return errors;
  }

  void Search(const Resource& resource, std::int64_t left, const std::vector<double>& sum, double rise, Factors factors,
              std::size_t u, std::vector<int>& columns, Optimum& best) const {
    if (left < 0) return;
    if (u == columns.size()) {
      double value = factors.posterior * rise;
      for (const double s : sum) value += factors.data * 0.5 * s * s;
      if (value < best.value) {
        best.second = best.value;
        best.value = value;
        best.columns = columns;
      } else if (value < best.second) {
        best.second = value;
      }
      return;
    }
    std::vector<double> next(sum.size());
    for (std::size_t k = 0; k < widths_.size(); ++k) {
      columns[u] = static_cast<int>(k);
      for (std::size_t row = 0; row < sum.size(); ++row) next[row] = sum[row] + projections_[u][k][row];
      Search(resource, left - Cost(problem_.units[u], widths_[k], resource), next, rise + problem_.loss_rise[u][k],
             factors, u + 1, columns, best);
    }
  }

  RandomStream stream_;
  std::vector<int> widths_;
  double noise_;
  double offset_ = 0.0;
  int batches_ = 0;
  AllocationProblem problem_;
  std::vector<std::string> names_;
  std::vector<std::vector<std::vector<double>>> errors_;       // [units][widths][weights]
  std::vector<std::vector<std::vector<double>>> projections_;  // [units][widths][rows]
  std::vector<std::vector<double>> tilt_;                      // [units][weights], of the minibatch
};

}  // namespace bitplan::testing
