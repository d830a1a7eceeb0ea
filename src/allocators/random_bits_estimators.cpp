#include "allocators/random_bits_estimators.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"

namespace bitplan::random_bits {
namespace {

void Softmax(const std::vector<double>& logits, std::vector<double>& probabilities) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  probabilities.resize(logits.size());
  double sum = 0.0;
  for (std::size_t k = 0; k < logits.size(); ++k) sum += probabilities[k] = std::exp(logits[k] - largest);
  for (double& p : probabilities) p /= sum;
}

int Draw(const std::vector<double>& probabilities, RandomStream& stream) {
  double left = stream.Uniform();
  const int last = static_cast<int>(probabilities.size()) - 1;
  for (int k = 0; k < last; ++k) {
    left -= probabilities[k];
    if (left < 0.0) return k;
  }
  return last;
}

double Mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

class ScoreFunction final : public DataEstimator {
 public:
  ScoreFunction(int samples, LikelihoodOracle& oracle, const Table& rises, RandomStream stream)
      : oracle_(oracle), rises_(rises), stream_(stream), plans_(samples, std::vector<int>(rises.size())) {}

  double AddGradient(const Table& /*logits*/, const Table& probabilities, double /*temperature*/, double weight,
                     Table& gradient) override {
    oracle_.NextBatch();
    std::vector<double> losses, predicted;
    for (std::vector<int>& plan : plans_) {
      double rise = 0.0;
      for (std::size_t u = 0; u < plan.size(); ++u) {
        plan[u] = Draw(probabilities[u], stream_);
        rise += rises_[u][plan[u]];
      }
      predicted.push_back(rise);
      losses.push_back(oracle_.Loss(plan));
    }
    const double mean_loss = Mean(losses), mean_predicted = Mean(predicted);
    const double alpha = variance_ > 0.0 ? covariance_ / variance_ : 1.0;
    const double share = weight / static_cast<double>(plans_.size() - 1);
    for (std::size_t s = 0; s < plans_.size(); ++s) {
      const double dl = losses[s] - mean_loss, dp = predicted[s] - mean_predicted;
      const double unexplained = share * (dl - alpha * dp);
      for (std::size_t u = 0; u < rises_.size(); ++u) {
        for (std::size_t k = 0; k < rises_[u].size(); ++k) gradient[u][k] -= unexplained * probabilities[u][k];
        gradient[u][plans_[s][u]] += unexplained;
      }
      covariance_ += dl * dp;
      variance_ += dp * dp;
    }
    AddExpectationGradient(probabilities, rises_, weight * alpha, gradient);
    return mean_loss;
  }

 private:
  LikelihoodOracle& oracle_;
  const Table& rises_;
  RandomStream stream_;
  std::vector<std::vector<int>> plans_;
  double covariance_ = 0.0, variance_ = 0.0;  // of loss and prediction, within minibatches
};

class GumbelSoftmax final : public DataEstimator {
 public:
  GumbelSoftmax(LikelihoodOracle& oracle, const Table& rises, RandomStream stream)
      : oracle_(oracle), rises_(rises), stream_(stream), mixture_(rises) {}

  double AddGradient(const Table& logits, const Table& probabilities, double temperature, double weight,
                     Table& gradient) override {
    oracle_.NextBatch();
    std::vector<double> noisy;
    for (std::size_t u = 0; u < logits.size(); ++u) {
      noisy.clear();
      for (const double logit : logits[u]) {
        const double uniform = std::max(stream_.Uniform(), 1e-300);
        noisy.push_back((logit - std::log(-std::log(uniform))) / temperature);
      }
      Softmax(noisy, mixture_[u]);
    }
    const double loss = oracle_.LossAndGradient(mixture_, slopes_);
    for (std::size_t u = 0; u < slopes_.size(); ++u) {
      for (std::size_t k = 0; k < slopes_[u].size(); ++k) slopes_[u][k] -= rises_[u][k];
    }
    AddExpectationGradient(probabilities, rises_, weight, gradient);
    AddExpectationGradient(mixture_, slopes_, weight / temperature, gradient);
    return loss;
  }

 private:
  LikelihoodOracle& oracle_;
  const Table& rises_;
  RandomStream stream_;
  Table mixture_, slopes_;
};

}  // namespace

Table Probabilities(const Table& logits) {
  Table result(logits.size());
  for (std::size_t u = 0; u < logits.size(); ++u) Softmax(logits[u], result[u]);
  return result;
}

double Expectation(const Table& probabilities, const Table& values) {
  double sum = 0.0;
  for (std::size_t u = 0; u < values.size(); ++u) {
    for (std::size_t k = 0; k < values[u].size(); ++k) sum += probabilities[u][k] * values[u][k];
  }
  return sum;
}

void AddExpectationGradient(const Table& probabilities, const Table& values, double weight, Table& gradient) {
  for (std::size_t u = 0; u < values.size(); ++u) {
    double mean = 0.0;
    for (std::size_t k = 0; k < values[u].size(); ++k) mean += probabilities[u][k] * values[u][k];
    for (std::size_t k = 0; k < values[u].size(); ++k) {
      gradient[u][k] += weight * probabilities[u][k] * (values[u][k] - mean);
    }
  }
}

std::unique_ptr<DataEstimator> MakeDataEstimator(const RandomBitsOptions& options, LikelihoodOracle& oracle,
                                                 const Table& rises, RandomStream stream) {
  if (options.estimator == "gumbel-softmax") return std::make_unique<GumbelSoftmax>(oracle, rises, stream);
  if (options.estimator == "score-function") {
    return std::make_unique<ScoreFunction>(options.samples, oracle, rises, stream);
  }
  throw Error(ErrorKind::kUsage, UnknownNameMessage("allocate.random_bits.estimator", options.estimator,
                                                    {"gumbel-softmax", "score-function"}));
}

}  // namespace bitplan::random_bits
