#include "bitplan/models/answers.h"

#include <fmt/format.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <set>
#include <string>

#include "models/operation_matcher.h"

namespace bitplan {
namespace {

constexpr std::int64_t kAlone = 4;  // images tried alone, spread over the batch
constexpr double kRounding = 1e-3;  // of the largest answer: more than sums in another order can do

struct Causes {
  bool batch_statistics = false, dropout = false;
  std::set<std::string> random;  // other operations that draw numbers
};

bool IsTrue(Operands operands, std::size_t index) {
  return index < operands.size() && operands[index].isBool() && operands[index].toBool();
}

double NumberAt(Operands operands, std::size_t index) {
  return index < operands.size() && operands[index].isDouble() ? operands[index].toDouble() : 0.0;
}

void Note(std::string_view operation, Operands operands, Causes& causes) {
  static const std::set<std::string_view> kRandom = {
      "aten::rand",     "aten::randn",       "aten::rand_like",    "aten::randn_like",
      "aten::randint",  "aten::randperm",    "aten::normal",       "aten::normal_",
      "aten::uniform_", "aten::bernoulli",   "aten::bernoulli_",   "aten::random_",
      "aten::poisson",  "aten::multinomial", "aten::exponential_", "aten::randint_like"};
  static const std::set<std::string_view> kDropout = {
      "aten::dropout",       "aten::dropout_",       "aten::feature_dropout",       "aten::feature_dropout_",
      "aten::alpha_dropout", "aten::alpha_dropout_", "aten::feature_alpha_dropout", "aten::feature_alpha_dropout_",
      "aten::native_dropout"};
  const auto form = BatchNormOf(operation, operands);
  if (form && IsTrue(operands, form->training)) causes.batch_statistics = true;
  if (operation == "aten::batch_norm" && IsTrue(operands, 5)) causes.batch_statistics = true;  // no running ones
  if (kDropout.contains(operation) && IsTrue(operands, 2) && NumberAt(operands, 1) > 0.0) causes.dropout = true;
  // input, state, weights, has_biases, num_layers, dropout, train, ...
  const bool recurrent = operation == "aten::lstm" || operation == "aten::gru" || operation == "aten::rnn_tanh" ||
                         operation == "aten::rnn_relu";
  if (recurrent && NumberAt(operands, 5) > 0.0 && IsTrue(operands, 6)) causes.dropout = true;
  if (operation == "aten::scaled_dot_product_attention" && NumberAt(operands, 4) > 0.0) causes.dropout = true;
  if ((operation == "aten::rrelu" || operation == "aten::rrelu_") && IsTrue(operands, 3))
    causes.random.emplace(operation);
  if (kRandom.contains(operation)) causes.random.emplace(operation);
}

// Largest difference of two answers; the same infinity, or no number in both, is no difference.
double Difference(const torch::Tensor& a, const torch::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
  if (a.numel() == 0) return 0.0;
  const torch::Tensor same = a.eq(b) | (a.ne(a) & b.ne(b));
  const torch::Tensor difference = torch::where(same, torch::zeros_like(a), (a - b).abs());
  return difference.nan_to_num(std::numeric_limits<double>::infinity()).max().item<double>();
}

double Largest(const torch::Tensor& answers) {
  const torch::Tensor finite = torch::where(answers.isfinite(), answers, torch::zeros_like(answers));
  return finite.numel() == 0 ? 0.0 : finite.abs().max().item<double>();
}

}  // namespace

std::string WhyAnswersVary(const Network& network, const torch::Tensor& images) {
  const torch::NoGradGuard no_grad;
  Causes causes;
  torch::Tensor first;
  {
    OperationObserver observer(
        [&](std::string_view operation, Operands operands) {
          Note(operation, operands, causes);
          return false;
        },
        [](Operands) {});
    first = RunForward(network.module, images).to(torch::kFloat64).clone();
    observer.Rethrow();
  }
  const torch::Tensor second = RunForward(network.module, images).to(torch::kFloat64).clone();
  const std::int64_t count = images.size(0);
  double by_batch = 0.0;
  for (std::int64_t i = 0; i < std::min(kAlone, count); ++i) {
    const std::int64_t at = i * count / std::min(kAlone, count);
    const torch::Tensor alone = RunForward(network.module, images.narrow(0, at, 1)).to(torch::kFloat64);
    by_batch =
        std::max(by_batch, first.dim() > 0 && at < first.size(0) ? Difference(alone, first.narrow(0, at, 1)) : 0.0);
  }
  RestoreChangedByForward(network, network.module);
  const double by_chance = Difference(first, second), size = Largest(first), rounding = kRounding * size;
  if (by_chance > rounding) {
    std::string cause = "forward depends on chance, or on the passes before: take that out of it";
    if (causes.dropout) {
      cause =
          "dropout is active, as in training: call .eval() before tracing, and F.dropout(x, training=self.training)";
    } else if (!causes.random.empty()) {
      cause = "forward draws random numbers (" + *causes.random.begin() + "): take them out of it";
    }
    return fmt::format(
        "answers of model '{}' differ from one pass over the same images to the next, by up to {:.3g} where "
        "the largest is {:.3g}; {}",
        network.name, by_chance, size, cause);
  }
  if (by_batch > rounding) {
    const std::string cause =
        causes.batch_statistics
            ? "its batch norms use the statistics of the batch, as in training: call .eval() before tracing, and keep "
              "track_running_stats=True"
            : "an operation of its forward looks at the whole batch: let it treat every image by itself";
    return fmt::format(
        "answers of model '{}' depend on the other images of the batch, by up to {:.3g} where the largest "
        "is {:.3g}; {}",
        network.name, by_batch, size, cause);
  }
  return "";
}

}  // namespace bitplan
