// Losses, divergences, sketches of the Fisher information and figures of every task.
#include "bitplan/likelihoods/likelihood.h"

#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "bitplan/core/error.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

// Outputs of a few images, with labels.
struct Case {
  std::string task;
  torch::Tensor outputs, labels;
};

std::vector<Case> Cases() {
  torch::manual_seed(3);
  const torch::Tensor pixels = torch::randint(3, {2, 2, 2}, torch::kInt64);
  torch::Tensor tokens = torch::randint(4, {2, 3}, torch::kInt64);
  tokens[0][1] = kIgnored;
  tokens[1][0] = kIgnored;
  tokens[1][2] = kIgnored;
  return {{"classification", torch::randn({3, 4}), torch::tensor({0, 3, 1}, torch::kInt64)},
          {"segmentation", torch::randn({2, 3, 2, 2}), pixels},
          {"tokens", torch::randn({2, 3, 4}), tokens},
          {"regression", torch::randn({2, 2, 2}), torch::randn({2, 2, 2})},
          {"multi-label", torch::randn({2, 3}), torch::randint(2, {2, 3}, torch::kFloat)}};
}

std::unique_ptr<Likelihood> Made(const std::string& task) {
  auto likelihood = FindLikelihood(task).make();
  likelihood->SetNoise(0.3);
  return likelihood;
}

// The Hessian of the summed losses with respect to all outputs. In these likelihoods it does not depend on the labels,
// so that it is the Fisher information.
torch::Tensor ExactInformation(const Likelihood& likelihood, const Case& one) {
  const torch::Tensor outputs = one.outputs.detach().clone().set_requires_grad(true);
  const torch::Tensor first =
      torch::autograd::grad({likelihood.Losses(outputs, one.labels).sum()}, {outputs}, {}, true, true)[0].reshape(-1);
  std::vector<torch::Tensor> rows;
  for (std::int64_t i = 0; i < first.numel(); ++i) {
    rows.push_back(torch::autograd::grad({first[i]}, {outputs}, {}, true, false, true)[0].reshape(-1));
  }
  return torch::stack(rows);
}

TEST_CASE("sketches of every task have the exact Fisher information") {
  constexpr int kDraws = 6000;
  for (const Case& one : Cases()) {
    INFO(one.task);
    const auto likelihood = Made(one.task);
    const torch::Tensor exact = ExactInformation(*likelihood, one);
    torch::Tensor sum = torch::zeros_like(exact);
    RandomStream stream(5, "test");
    const torch::Tensor outputs = one.outputs.detach().clone().set_requires_grad(true);
    for (int draw = 0; draw < kDraws; ++draw) {
      const torch::Tensor g =
          torch::autograd::grad({likelihood->Sketch(outputs, one.labels, stream)}, {outputs})[0].reshape({-1, 1});
      sum.add_(g.matmul(g.t()));
    }
    const torch::Tensor found = sum / kDraws;
    // Also between images and positions, where it is zero.
    CHECK((found - exact).abs().max().item<double>() < 0.06 * exact.abs().max().item<double>());
    CHECK(found.trace().item<double>() == Approx(exact.trace().item<double>()).epsilon(0.02));
  }
}

TEST_CASE("a small divergence of every task is half of what the information says") {
  for (const Case& one : Cases()) {
    INFO(one.task);
    const auto likelihood = Made(one.task);
    const torch::Tensor step = torch::randn_like(one.outputs) * 0.01, flat = step.reshape({1, -1});
    const double predicted = 0.5 * flat.matmul(ExactInformation(*likelihood, one)).matmul(flat.t()).item<double>();
    const torch::Tensor divergence = likelihood->Divergences(one.outputs, one.outputs + step, one.labels);
    REQUIRE(divergence.sizes() == torch::IntArrayRef({one.outputs.size(0)}));
    CHECK(divergence.sum().item<double>() == Approx(predicted).epsilon(0.05));
    CHECK(likelihood->Divergences(one.outputs, one.outputs, one.labels).abs().max().item<double>() < 1e-6);
  }
}

TEST_CASE("the loss of an image is the mean over its positions that count") {
  for (const Case& one : Cases()) {
    INFO(one.task);
    const auto likelihood = Made(one.task);
    const torch::Tensor losses = likelihood->Losses(one.outputs, one.labels);
    CHECK(likelihood->Loss(one.outputs, one.labels).item<double>() == Approx(losses.mean().item<double>()));
    CHECK(likelihood->Loss(one.outputs, one.labels, false).item<double>() == Approx(losses.sum().item<double>()));
  }
  const Case tokens = Cases()[2];
  const torch::Tensor log_p = tokens.outputs.log_softmax(2);
  const auto at = [&](std::int64_t image, std::int64_t place) {
    return -log_p[image][place][tokens.labels[image][place].item<std::int64_t>()].item<double>();
  };
  const torch::Tensor losses = Made("tokens")->Losses(tokens.outputs, tokens.labels);
  CHECK(losses[0].item<double>() == Approx(0.5 * (at(0, 0) + at(0, 2))));
  CHECK(losses[1].item<double>() == Approx(at(1, 1)));
  // What an ignored position says does not matter.
  torch::Tensor other = tokens.outputs.clone();
  other[1][0].mul_(-5.0);
  CHECK(torch::equal(Made("tokens")->Losses(other, tokens.labels), losses));
  CHECK(Made("tokens")->Divergences(tokens.outputs, other, tokens.labels)[1].item<double>() == 0.0);
}

Evaluation Measured(const Likelihood& likelihood, const torch::Tensor& outputs, const torch::Tensor& labels,
                    std::int64_t batch) {
  const auto measure = likelihood.MakeMeasure(labels);
  for (std::int64_t begin = 0; begin < labels.size(0); begin += batch) {
    const std::int64_t end = std::min(begin + batch, labels.size(0));
    measure->Add(outputs.slice(0, begin, end), labels.slice(0, begin, end));
  }
  return measure->Finish();
}

double FigureOf(const Evaluation& evaluation, const std::string& name) {
  for (const Figure& figure : evaluation.metrics.figures) {
    if (figure.name == name) return figure.value;
  }
  FAIL("no figure " << name);
  return 0.0;
}

TEST_CASE("figures do not depend on the size of the batches, and the score is a ratio of sums over images") {
  for (const Case& one : Cases()) {
    if (one.task == "classification") continue;
    INFO(one.task);
    const auto likelihood = Made(one.task);
    const Evaluation whole = Measured(*likelihood, one.outputs, one.labels, 2),
                     single = Measured(*likelihood, one.outputs, one.labels, 1);
    double gained = 0.0, possible = 0.0;
    for (std::size_t i = 0; i < whole.gained.size(); ++i) {
      gained += whole.gained[i];
      possible += whole.possible[i];
    }
    CHECK(whole.metrics.figures.front().value == Approx(gained / possible));
    CHECK(whole.metrics.accuracy == whole.metrics.figures.front().value);
    REQUIRE(whole.metrics.figures.size() == single.metrics.figures.size());
    for (std::size_t i = 0; i < whole.metrics.figures.size(); ++i) {
      CHECK(whole.metrics.figures[i].value == Approx(single.metrics.figures[i].value));
    }
    CHECK(whole.nll.size() == 2);
    CHECK(FigureOf(whole, "nll") == Approx(likelihood->Loss(one.outputs, one.labels).item<double>()).epsilon(1e-5));
  }
}

TEST_CASE("accuracy and mean IoU of a segmentation count pixels with a label, and classes that there are") {
  // Four classes, of which nobody says or has the last; one pixel is ignored.
  const torch::Tensor labels = torch::tensor({0, 0, 1, 2, -100, 1}, torch::kInt64).reshape({1, 2, 3});
  const torch::Tensor answers = torch::tensor({0, 1, 1, 0, 3, 1}, torch::kInt64).reshape({1, 2, 3});
  const torch::Tensor logits = torch::one_hot(answers, 4).permute({0, 3, 1, 2}).to(torch::kFloat) * 5.0;
  const Evaluation found = Measured(*Made("segmentation"), logits, labels, 1);
  CHECK(FigureOf(found, "accuracy") == Approx(3.0 / 5.0));
  // class 0: 1 of {0, 0, 2} positions; class 1: 2 of 3; class 2: 0 of 1
  CHECK(FigureOf(found, "miou") == Approx((1.0 / 3.0 + 2.0 / 3.0 + 0.0) / 3.0));
}

TEST_CASE("perplexity is of all tokens alike, however long their sequences are") {
  const torch::Tensor labels = torch::tensor({0, 1, 0, -100, -100, 1}, torch::kInt64).reshape({2, 3});
  torch::Tensor p = torch::full({2, 3, 2}, 0.5);
  p[1][2][0] = 0.8F;
  p[1][2][1] = 0.2F;
  const Evaluation found = Measured(*Made("tokens"), p.log(), labels, 2);
  CHECK(FigureOf(found, "perplexity") == Approx(std::exp((3.0 * std::log(2.0) + std::log(5.0)) / 4.0)));
  CHECK(FigureOf(found, "nll") == Approx(0.5 * (std::log(2.0) + std::log(5.0))));
  CHECK(FigureOf(found, "accuracy") == Approx(0.5));
}

TEST_CASE("R2 and RMSE of a regression, and its noise in the loss") {
  const torch::Tensor targets = torch::tensor({1.0F, 2.0F, 3.0F, 6.0F}),
                      outputs = torch::tensor({{1.5F}, {2.0F}, {2.0F}, {6.0F}});
  const auto likelihood = Made("regression");
  CHECK(likelihood->Misfit(outputs, targets).empty());
  const Evaluation found = Measured(*likelihood, outputs, targets, 3);
  CHECK(FigureOf(found, "rmse") == Approx(std::sqrt(1.25 / 4.0)));
  CHECK(FigureOf(found, "r2") == Approx(1.0 - 1.25 / 14.0));
  CHECK(FigureOf(found, "nll") == Approx(1.25 / 4.0 / 0.6 + 0.5 * std::log(2.0 * 3.14159265358979 * 0.3)));
  CHECK_THROWS_WITH(Measured(*likelihood, outputs, torch::ones({4}), 4), ContainsSubstring("all targets are alike"));
}

TEST_CASE("F1 of labels is the mean over those that there are, and one output is a classifier of two classes") {
  const torch::Tensor labels = torch::tensor({1.0F, 0.0F, 0.0F, 1.0F, 1.0F, 0.0F}).reshape({2, 3});
  const torch::Tensor outputs = torch::tensor({2.0F, 1.0F, -1.0F, 1.0F, -2.0F, -1.0F}).reshape({2, 3});
  const Evaluation found = Measured(*Made("multi-label"), outputs, labels, 2);
  CHECK(FigureOf(found, "accuracy") == Approx(4.0 / 6.0));
  CHECK(FigureOf(found, "f1") == Approx((1.0 + 0.0) / 2.0));  // nobody has the third label, or says so
  const auto likelihood = Made("multi-label");
  const torch::Tensor one = torch::tensor({1.0F, 0.0F, 1.0F}), y = torch::tensor({{0.5F}, {0.1F}, {-0.2F}});
  CHECK(likelihood->Misfit(y, one).empty());
  CHECK(FigureOf(Measured(*likelihood, y, one, 3), "accuracy") == Approx(1.0 / 3.0));
  // As softmax over the logits 0 and y.
  const torch::Tensor both = torch::cat({torch::zeros_like(y), y}, 1);
  CHECK(torch::allclose(likelihood->Losses(y, one), Classification().Losses(both, one.to(torch::kInt64)), 1e-5, 1e-6));
}

TEST_CASE("labels and outputs of another task are told apart in one phrase") {
  const auto adopted = [](const char* task, torch::Tensor labels) { return Made(task)->AdoptLabels(labels); };
  CHECK_THAT(adopted("segmentation", torch::zeros({3}, torch::kInt64)), ContainsSubstring("for every position"));
  CHECK_THAT(adopted("segmentation", torch::full({2, 2}, -1, torch::kInt64)), ContainsSubstring("-100"));
  CHECK_THAT(adopted("tokens", torch::zeros({2, 2})), ContainsSubstring("integers"));
  CHECK_THAT(adopted("multi-label", torch::full({2, 2}, 2, torch::kInt64)), ContainsSubstring("0 and 1"));
  CHECK(adopted("regression", torch::full({2, 2}, 2, torch::kInt64)).empty());
  const torch::Tensor pixels = torch::full({2, 4, 4}, 2, torch::kInt64);
  CHECK(Made("segmentation")->Misfit(torch::zeros({1, 3, 4, 4}), pixels).empty());
  CHECK_THAT(Made("segmentation")->Misfit(torch::zeros({1, 2, 4, 4}), pixels), ContainsSubstring("go up to 2"));
  CHECK_THAT(Made("segmentation")->Misfit(torch::zeros({1, 3, 2, 2}), pixels),
             ContainsSubstring("positions of the labels"));
  CHECK_THAT(Made("segmentation")->Misfit(torch::zeros({1, 3}), pixels),
             ContainsSubstring("[N, classes, positions...]"));
  CHECK_THAT(Made("regression")->Misfit(torch::zeros({1, 3}), torch::zeros({5, 4})),
             ContainsSubstring("shape of the targets"));
  CHECK_THAT(Made("multi-label")->Misfit(torch::zeros({1, 3}), torch::zeros({5, 4})), ContainsSubstring("[N, 4]"));
  CHECK_THROWS_WITH(FindLikelihood("segmentaton"), ContainsSubstring("nearest: segmentation"));
}

TEST_CASE("outputs that are no numbers make their image unsound") {
  for (const Case& one : Cases()) {
    INFO(one.task);
    torch::Tensor outputs = one.outputs.clone();
    outputs.reshape({outputs.size(0), -1})[1][1] = std::nan("");
    const torch::Tensor sound = Made(one.task)->AreSound(outputs);
    CHECK(sound[0].item<bool>());
    CHECK_FALSE(sound[1].item<bool>());
  }
}

}  // namespace
}  // namespace bitplan
