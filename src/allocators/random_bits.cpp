// random-bits: the width of every unit is a random variable, and stochastic gradient finds the distribution that the
// full likelihood of the quantized weights prefers within the budget.
//
//   b_u ~ Categorical(p_u),   minimise over p   E_b[ w_d * loss(b) + w_p * sum_u D_u(b_u) ] - tau * H(p)
//                             subject to        E_b[cost(b)] <= budget,
//
// loss: negative log-likelihood of minibatches through the network (LikelihoodOracle); D: the sensitivity table, in
// closed form; H: entropy, whose weight tau is annealed geometrically from the typical gap between the best two widths
// of a unit to a tenth of it. At the optimum p_u(k) ~ exp(-(F_uk + lambda c_uk) / tau) with F_uk the expected objective
// when unit u has width k and the others are drawn; F is what is learned, by Adam along the gradient with respect to
// the logits, so that a change of lambda or tau acts at once and need not be learned. F starts as (w_d + w_p) * D,
// lambda at the shadow price of the table and follows by multiplicative dual ascent. The data term is estimated by
// Gumbel-softmax or by the score function (random_bits_estimators.h).
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

// Costs in bits per weight, so that the price of the budget has the same unit in every problem.
struct Costs {
  Table per_width{};
  double budget = 0.0;
};

double CostScale(const AllocationProblem& problem, const Budget& budget) {
  const double one_bit = CostOfOneBit(problem, budget.resource);
  return one_bit > 0.0 ? 1.0 / one_bit : 1.0;
}

Costs NormalizedCosts(const AllocationProblem& problem, const Budget& budget) {
  const double scale = CostScale(problem, budget);
  Costs costs{.budget = scale * static_cast<double>(Capacity(problem, budget))};
  for (const Unit& unit : problem.units) {
    std::vector<double>& row = costs.per_width.emplace_back();
    for (const int width : problem.widths)
      row.push_back(scale * static_cast<double>(Cost(unit, width, budget.resource)));
  }
  return costs;
}

double ShadowPrice(const AllocationProblem& problem, const Budget& budget) {
  const double scale = CostScale(problem, budget);
  return RelaxKnapsack(KnapsackClasses(problem, budget.resource), Capacity(problem, budget)).shadow_price / scale;
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

// The typical gap between the best two widths of a unit at the price of the budget: the unit of F and tau, nats.
double TypicalGap(const Table& rises, const Costs& costs, double weight, double price) {
  std::vector<double> gaps;
  for (std::size_t u = 0; u < rises.size(); ++u) {
    std::vector<double> row;
    for (std::size_t k = 0; k < rises[u].size(); ++k)
      row.push_back(weight * rises[u][k] + price * costs.per_width[u][k]);
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
        costs_(NormalizedCosts(inputs.problem, inputs.budget)),
        values_(rises_),
        adam_(rises_) {
    const double both = data_weight_ + options_.posterior_weight;
    price_ = both * ShadowPrice(inputs.problem, inputs.budget);
    gap_ = TypicalGap(rises_, costs_, both, price_);
    price_ = std::max(price_, 1e-3 * gap_);  // dual ascent multiplies: it cannot leave zero
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
        logits[u][k] = -(value + price_ * costs_.per_width[u][k]) / tau;
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
    price_ *= std::exp(kDualRate * (Expectation(probabilities, costs_.per_width) - costs_.budget));
    return probabilities;
  }

  // Sums over the averaged steps: their scale does not matter to the knapsack.
  Allocation Answer(const Table& values, Table probabilities) const {
    std::vector<std::vector<KnapsackItem>> classes(values.size());
    for (std::size_t u = 0; u < classes.size(); ++u) {
      double total = 0.0;
      for (const double p : probabilities[u]) total += p;
      for (std::size_t k = 0; k < values[u].size(); ++k) {
        probabilities[u][k] /= total;
        classes[u].push_back(
            {Cost(inputs_.problem.units[u], inputs_.problem.widths[k], inputs_.budget.resource), values[u][k]});
      }
    }
    const KnapsackSolution solution = SolveKnapsack(classes, Capacity(inputs_.problem, inputs_.budget));
    Allocation result = MakeAllocation(inputs_.problem, inputs_.budget.resource, solution.chosen);
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
  Costs costs_;
  double price_ = 0.0, gap_ = 1.0;  // nats per average bit; nats
  Table values_;                    // F in units of gap_
  Adam adam_;
  std::unique_ptr<DataEstimator> estimator_;
};

}  // namespace

Allocation AllocateRandomBits(const AllocatorInputs& inputs) {
  CheckOptions(inputs.options.random_bits, inputs.oracle != nullptr);
  return Learner(inputs).Run();
}

}  // namespace bitplan
