// random-bits: the width of every unit is a random variable, and stochastic gradient finds the distribution that the
// full likelihood of the quantized weights prefers within the budget.
//
//   b_u ~ Categorical(p_u),   minimise over p   E_b[ w_d * loss(b) + w_p * sum_u D_u(b_u) ] - tau * H(p)
//                             subject to        E_b[cost(b)] <= budget   in every limit,
//
// loss: negative log-likelihood of minibatches through the network (LikelihoodOracle); D: the sensitivity table, in
// closed form; H: entropy, whose weight tau is annealed geometrically from the typical gap between the best two widths
// of a unit to a tenth of it. At the optimum p_u(k) ~ exp(-(F_uk + lambda c_uk) / tau) with F_uk the expected objective
// when unit u has width k and the others are drawn; F is what is learned, by Adam along the gradient with respect to
// the logits, so that a change of lambda or tau acts at once and need not be learned. F starts as (w_d + w_p) * D,
// lambda, one per limit, at the shadow price of the table and follows by multiplicative dual ascent. The data term is
// estimated by Gumbel-softmax or by the score function (random_bits_estimators.h).
//
// The answer is the most probable plan within the budget: an exact knapsack over the learned F, averaged over the last
// quarter of the steps, which is log p with the price of the budget taken out, because now the budget itself binds. The
// width probabilities are averages over the same steps; their entropy says how sure the plan is.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "allocators/random_bits_estimators.h"
#include "allocators/select.h"
#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"

namespace bitplan {

using namespace random_bits;

namespace {

void CheckOptions(const RandomBitsOptions& options, bool has_oracle) {
  const auto refuse = [](const char* key, double value, const char* bound) {
    throw Error(ErrorKind::kUsage, fmt::format("allocate.random_bits.{} is {}; it must be {}", key, value, bound));
  };
  if (options.steps < 1) refuse("steps", options.steps, ">= 1");
  if (options.samples < 2) refuse("samples", options.samples, ">= 2");
  if (!(options.learning_rate > 0.0)) refuse("learning_rate", options.learning_rate, "> 0");
  if (!(options.data_weight >= 0.0)) refuse("data_weight", options.data_weight, ">= 0");
  if (!(options.posterior_weight >= 0.0)) refuse("posterior_weight", options.posterior_weight, ">= 0");
  if (options.posterior_weight + (has_oracle ? options.data_weight : 0.0) > 0.0) return;
  throw Error(ErrorKind::kUsage, has_oracle ? "allocate.random_bits: data_weight and posterior_weight are both 0"
                                            : "allocate.random_bits.posterior_weight is 0, and without a likelihood "
                                              "there is nothing else to learn from");
}

// Costs of one limit in bits per weight, so that its price has the same unit in every problem.
struct Costs {
  Table per_width{};
  double budget = 0.0;
  double price = 0.0;  // nats per average bit
};

double CostScale(const AllocationProblem& problem, const Limit& limit) {
  const double one_bit = CostOfOneBit(problem, limit.resource);
  return one_bit > 0.0 ? 1.0 / one_bit : 1.0;
}

Costs NormalizedCosts(const AllocationProblem& problem, const Limit& limit) {
  const double scale = CostScale(problem, limit);
  Costs costs{.budget = scale * static_cast<double>(Capacity(problem, limit))};
  for (const Unit& unit : problem.units) {
    std::vector<double>& row = costs.per_width.emplace_back();
    for (const int width : problem.widths)
      row.push_back(scale * static_cast<double>(Cost(unit, width, limit.resource)));
  }
  return costs;
}

// Of every limit, per cost, by the relaxation of the table.
std::vector<double> ShadowPrices(const AllocationProblem& problem, const Budget& budget) {
  if (budget.limits.size() > 1) {
    return SolveChoices(ChoicesOfWidths(problem, budget, problem.loss_rise), {.method = "lagrangian"}).prices;
  }
  const Limit& limit = budget.limits.front();
  return {RelaxKnapsack(KnapsackClasses(problem, limit.resource), Capacity(problem, limit)).shadow_price};
}

// The most probable plan: the knapsack over what was learned.
std::vector<int> LeastOf(const AllocationProblem& problem, const Budget& budget, const Table& values) {
  if (budget.limits.size() > 1) return SolveChoices(ChoicesOfWidths(problem, budget, values)).chosen;
  const Limit& limit = budget.limits.front();
  std::vector<std::vector<KnapsackItem>> classes(values.size());
  for (std::size_t u = 0; u < classes.size(); ++u) {
    for (std::size_t k = 0; k < values[u].size(); ++k) {
      classes[u].push_back({Cost(problem.units[u], problem.widths[k], limit.resource), values[u][k]});
    }
  }
  return SolveKnapsack(classes, Capacity(problem, limit)).chosen;
}

class Adam {
 public:
  explicit Adam(const Table& shape) : first_(shape), second_(shape) {
    for (Table* moments : {&first_, &second_}) {
      for (auto& row : *moments) std::fill(row.begin(), row.end(), 0.0);
    }
  }

  void Step(const Table& gradient, double learning_rate, Table& values) {
    constexpr double kFirst = 0.9, kSecond = 0.99, kTiny = 1e-8;
    correction_first_ *= kFirst;
    correction_second_ *= kSecond;
    for (std::size_t u = 0; u < values.size(); ++u) {
      for (std::size_t k = 0; k < values[u].size(); ++k) {
        const double g = gradient[u][k];
        first_[u][k] = kFirst * first_[u][k] + (1.0 - kFirst) * g;
        second_[u][k] = kSecond * second_[u][k] + (1.0 - kSecond) * g * g;
        const double mean = first_[u][k] / (1.0 - correction_first_);
        const double size = std::sqrt(second_[u][k] / (1.0 - correction_second_));
        values[u][k] -= learning_rate * mean / (size + kTiny);
      }
    }
  }

 private:
  Table first_, second_;
  double correction_first_ = 1.0, correction_second_ = 1.0;
};

double Geometric(double from, double to, double share) { return from * std::pow(to / from, share); }

// Full step size in the first half of the steps, then down to a tenth.
double StepSize(double learning_rate, double share) {
  return share < 0.5 ? learning_rate : learning_rate * (1.0 - 0.9 * (2.0 * share - 1.0));
}

// The typical gap between the best two widths of a unit at the prices of the budget: the unit of F and tau, nats.
double TypicalGap(const Table& rises, const std::vector<Costs>& costs, double weight) {
  std::vector<double> gaps;
  for (std::size_t u = 0; u < rises.size(); ++u) {
    std::vector<double> row;
    for (std::size_t k = 0; k < rises[u].size(); ++k) {
      row.push_back(weight * rises[u][k]);
      for (const Costs& limit : costs) row.back() += limit.price * limit.per_width[u][k];
    }
    std::sort(row.begin(), row.end());
    if (row.size() > 1) gaps.push_back(row[1] - row[0]);
  }
  std::sort(gaps.begin(), gaps.end());
  const double gap = gaps.empty() ? 0.0 : gaps[gaps.size() / 2];
  return gap > 0.0 ? gap : 1.0;
}

double MeanEntropyBits(const Table& probabilities) {
  double sum = 0.0;
  for (const auto& row : probabilities) {
    for (const double p : row) sum -= p > 0.0 ? p * std::log2(p) : 0.0;
  }
  return sum / static_cast<double>(std::max<std::size_t>(probabilities.size(), 1));
}

class Learner {
 public:
  explicit Learner(const AllocatorInputs& inputs)
      : inputs_(inputs),
        rises_(inputs.problem.loss_rise),
        options_(inputs.options.random_bits),
        data_weight_(inputs.oracle != nullptr ? options_.data_weight : 0.0),
        values_(rises_),
        adam_(rises_) {
    const double both = data_weight_ + options_.posterior_weight;
    const std::vector<double> prices = ShadowPrices(inputs.problem, inputs.budget);
    for (std::size_t r = 0; r < prices.size(); ++r) {
      const Limit& limit = inputs.budget.limits[r];
      costs_.push_back(NormalizedCosts(inputs.problem, limit));
      costs_.back().price = both * (prices[r] / CostScale(inputs.problem, limit));
    }
    gap_ = TypicalGap(rises_, costs_, both);
    for (Costs& limit : costs_) limit.price = std::max(limit.price, 1e-3 * gap_);  // ascent cannot leave zero
    for (auto& row : values_) {
      for (double& value : row) value *= both / gap_;
    }
    if (data_weight_ > 0.0) {
      estimator_ =
          MakeDataEstimator(options_, *inputs.oracle, rises_, RandomStream(inputs.seed, "allocate/random-bits"));
    }
  }

  Allocation Run() {
    constexpr double kAnnealed = 0.7, kAveraged = 0.75;  // shares of the steps
    Table mean_values = Zeros(), mean_probabilities = Zeros();
    inputs_.progress.Begin("random-bits", options_.steps, "steps");
    for (int step = 0; step < options_.steps; ++step) {
      ThrowIfInterrupted();
      const double share = options_.steps > 1 ? static_cast<double>(step) / (options_.steps - 1) : 1.0;
      const Table probabilities = Step(std::min(1.0, share / kAnnealed), StepSize(options_.learning_rate, share));
      if (share >= kAveraged) {
        Add(values_, mean_values);
        Add(probabilities, mean_probabilities);
      }
      inputs_.progress.Advance(1);
    }
    inputs_.progress.End("");
    return Answer(mean_values, mean_probabilities);
  }

 private:
  [[nodiscard]] Table Zeros() const {
    Table zeros = rises_;
    for (auto& row : zeros) std::fill(row.begin(), row.end(), 0.0);
    return zeros;
  }

  static void Add(const Table& from, Table& to) {
    for (std::size_t u = 0; u < to.size(); ++u) {
      for (std::size_t k = 0; k < to[u].size(); ++k) to[u][k] += from[u][k];
    }
  }

  // One minibatch; the probabilities that it was drawn from. F and its gradient are in units of gap_.
  Table Step(double annealed, double step_size) {
    const double tau = gap_ * Geometric(1.0, 0.1, annealed);
    const double temperature = Geometric(1.0, 0.1, annealed);
    Table logits = values_, unexplained = values_;
    for (std::size_t u = 0; u < logits.size(); ++u) {
      for (std::size_t k = 0; k < logits[u].size(); ++k) {
        const double value = values_[u][k] * gap_;
        double priced = value;
        for (const Costs& limit : costs_) priced += limit.price * limit.per_width[u][k];
        logits[u][k] = -priced / tau;
        unexplained[u][k] = options_.posterior_weight * rises_[u][k] - value;
      }
    }
    const Table probabilities = Probabilities(logits);
    Table gradient = Zeros();
    AddExpectationGradient(probabilities, unexplained, 1.0 / gap_, gradient);
    if (estimator_) estimator_->AddGradient(logits, probabilities, temperature, data_weight_ / gap_, gradient);
    for (auto& row : gradient) {
      for (double& slope : row) slope = -slope;  // logits fall when F rises
    }
    adam_.Step(gradient, step_size, values_);
    constexpr double kDualRate = 0.05;  // per bit of average excess
    for (Costs& limit : costs_) {
      limit.price *= std::exp(kDualRate * (Expectation(probabilities, limit.per_width) - limit.budget));
    }
    return probabilities;
  }

  // Sums over the averaged steps: their scale does not matter to the knapsack.
  Allocation Answer(const Table& values, Table probabilities) const {
    for (auto& row : probabilities) {
      double total = 0.0;
      for (const double p : row) total += p;
      for (double& p : row) p /= total;
    }
    Allocation result =
        MakeAllocation(inputs_.problem, inputs_.budget, LeastOf(inputs_.problem, inputs_.budget, values));
    result.width_probabilities = std::move(probabilities);
    result.note = fmt::format("{}, {}; mean entropy of a width {:.3f} bits", Counted(options_.steps, "step"),
                              estimator_ ? options_.estimator : "sensitivity table only, no likelihood",
                              MeanEntropyBits(result.width_probabilities));
    return result;
  }

  const AllocatorInputs& inputs_;
  const Table& rises_;
  const RandomBitsOptions& options_;
  double data_weight_;
  std::vector<Costs> costs_;  // [limits]
  double gap_ = 1.0;          // nats
  Table values_;              // F in units of gap_
  Adam adam_;
  std::unique_ptr<DataEstimator> estimator_;
};

}  // namespace

Allocation AllocateRandomBits(const AllocatorInputs& inputs) {
  CheckOptions(inputs.options.random_bits, inputs.oracle != nullptr);
  return Learner(inputs).Run();
}

}  // namespace bitplan
