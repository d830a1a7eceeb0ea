// Networks of every task from recipe to plan, in one process.
#include <torch/csrc/jit/api/module.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/pipeline/bayes.h"
#include "bitplan/pipeline/compare.h"
#include "bitplan/pipeline/measure_curve.h"
#include "bitplan/pipeline/rank.h"
#include "bitplan/pipeline/run.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "pipeline/arrays.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

namespace fs = std::filesystem;
using testing::Folder;
using testing::WriteArray;

struct Task {
  std::string name;
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> weights;
  std::string forward;
  std::vector<std::int64_t> input;
  bool words = false;
  torch::Tensor (*labels)(const torch::Tensor& outputs);  // the float network is right about most
  std::string score;
  std::vector<std::string> others;
};

std::vector<Task> AllTasks() {
  const auto likeliest = [](const torch::Tensor& outputs) { return outputs.argmax(1); };
  const auto likeliest_token = [](const torch::Tensor& outputs) {
    torch::Tensor labels = outputs.argmax(2);
    labels.slice(1, 4).fill_(-100);  // padding
    return labels;
  };
  const auto noisy = [](const torch::Tensor& outputs) { return outputs + 0.1 * torch::randn_like(outputs); };
  const auto above = [](const torch::Tensor& outputs) { return outputs.gt(0.0).to(torch::kInt64); };
  return {
      {"segmentation",
       {{"a", {8, 3, 3, 3}}, {"b", {3, 8, 1, 1}}},
       "    return torch.conv2d(torch.relu(torch.conv2d(x, self.a, None, 1, 1)), self.b)\n",
       {3, 6, 6},
       false,
       likeliest,
       "accuracy",
       {"miou", "nll"}},
      {"tokens",
       {{"table", {12, 8}}, {"mix", {10, 8, 3}}, {"fc", {5, 10}}},
       "    h = torch.embedding(self.table, x.long()).transpose(1, 2)\n"
       "    h = torch.relu(torch.conv1d(h, self.mix, None, 1, 1)).transpose(1, 2)\n"
       "    return torch.linear(h, self.fc)\n",
       {6},
       true,
       likeliest_token,
       "accuracy",
       {"perplexity", "nll"}},
      {"regression",
       {{"down", {6, 1, 3, 3}}, {"up", {6, 1, 4, 4}}},
       "    return torch.conv_transpose2d(torch.relu(torch.conv2d(x, self.down, None, 2, 1)), self.up, None, 2, 1)\n",
       {1, 8, 8},
       false,
       noisy,
       "r2",
       {"rmse", "nll"}},
      {"multi-label",
       {{"a", {10, 7}}, {"b", {4, 10}}},
       "    return torch.linear(torch.relu(torch.linear(x, self.a)), self.b)\n",
       {7},
       false,
       above,
       "accuracy",
       {"f1", "nll"}},
      {"multi-label",
       {{"a", {10, 7}}, {"b", {1, 10}}},
       "    return torch.linear(torch.relu(torch.linear(x, self.a)), self.b).squeeze(1)\n",
       {7},
       false,
       above,
       "accuracy",
       {"f1", "nll"}},
  };
}

// Model, data and recipe of a task.
void Prepare(const Task& task, const fs::path& folder) {
  torch::manual_seed(6);
  torch::jit::Module module("Net");
  for (const auto& [name, shape] : task.weights) module.register_parameter(name, torch::randn(shape) * 0.6, false);
  module.define("def forward(self, x):\n" + task.forward);
  module.eval();
  module.save((folder / "model.pt").string());
  for (const auto& [split, count] : {std::pair<std::string, std::int64_t>{"train", 96}, {"test", 64}}) {
    std::vector<std::int64_t> shape = task.input;
    shape.insert(shape.begin(), count);
    const torch::Tensor images = task.words ? torch::randint(12, shape, torch::kInt64) : torch::randn(shape);
    WriteArray(folder / (split + "-images.npy"), images);
    WriteArray(folder / (split + "-labels.npy"), task.labels(module.forward({images}).toTensor()));
  }
  std::ofstream(folder / "task.yaml")
      << "bitplan: 1\nname: task\nmodel: {file: model.pt}\n"
         "data: {name: npy, train_images: train-images.npy, train_labels: train-labels.npy, test_images: "
         "test-images.npy, test_labels: test-labels.npy, calibration: 24, layout: as-is, task: "
      << task.name
      << "}\nsensitivity: {samples: 64}\nallocate: {draws: 1, budget: {average_bits: 6.0}}\nverify: {bootstrap: 500}\n";
}

pipeline::RecipeOptions Options(const fs::path& folder, std::vector<std::string> overrides = {}) {
  pipeline::RecipeOptions options;
  options.recipe = folder / "task.yaml";
  options.data = folder;
  options.out = folder / "out";
  options.overrides = std::move(overrides);
  return options;
}

std::vector<std::string> NamesIn(const Metrics& metrics) {
  std::vector<std::string> names;
  for (const Figure& figure : metrics.figures) names.push_back(figure.name);
  return names;
}

// The lines of a report but for what the clock says.
std::string WithoutTimes(const std::string& json) {
  std::istringstream lines(json);
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    if (line.find("allocate_ms") == std::string::npos) kept += line + "\n";
  }
  return kept;
}

TEST_CASE("a network of every task is planned, verified and written by its own figures") {
  for (const Task& task : AllTasks()) {
    INFO(task.name << " " << task.forward);
    const Folder folder;
    Prepare(task, folder.path);
    const auto report = pipeline::Run(Options(folder.path), SilentSink());
    REQUIRE(report.plan.verified);
    const Verification& verified = *report.plan.verified;
    CHECK(verified.task == task.name);
    CHECK(verified.score() == task.score);
    std::vector<std::string> names = task.others;
    names.insert(names.begin(), task.score);
    CHECK(NamesIn(verified.float_model) == names);
    CHECK(NamesIn(verified.quantized) == names);
    CHECK(verified.float_model.accuracy > 0.9);
    CHECK(verified.accuracy_drop.drop ==
          Approx(verified.float_model.accuracy - verified.quantized.accuracy).margin(2e-6));
    CHECK(verified.accuracy_drop.drop < 0.1);
    CHECK(verified.accuracy_drop.ci_low <= verified.accuracy_drop.drop);
    CHECK(verified.accuracy_drop.ci_high >= verified.accuracy_drop.drop);
    // The file says the same, and a second run finds it.
    const std::string text = ReadFile(folder.path / "out/plan.yaml", "plan");
    CHECK_THAT(text, ContainsSubstring("task: " + task.name) && ContainsSubstring("drop: {figure: " + task.score) &&
                         !ContainsSubstring("mcnemar"));
    CHECK(DumpPlan(ParsePlan(text, "plan.yaml")) == text);
    const auto again = pipeline::Run(Options(folder.path), SilentSink());
    CHECK(ReadFile(folder.path / "out/plan.yaml", "plan") == text);
    for (const auto& stage : again.stages) CHECK(stage.reused);
    CHECK_THAT(ReadFile(folder.path / "out/report.html", "page"), ContainsSubstring("task " + task.name));
    // One bit costs more.
    const auto few = pipeline::Run(Options(folder.path, {"allocate.budget.average_bits=1.0"}), SilentSink());
    CHECK(few.plan.verified->accuracy_drop.drop > verified.accuracy_drop.drop);
    CHECK(few.plan.achieved.predicted_loss_rise > report.plan.achieved.predicted_loss_rise);
  }
}

TEST_CASE("allocators are compared, and curves measured, by the score of every task") {
  for (const Task& task : AllTasks()) {
    INFO(task.name << " " << task.forward);
    const Folder folder;
    Prepare(task, folder.path);
    for (const char* seeds : {"1", "2"}) {
      const auto options = Options(folder.path, {"compare.allocators=[exact]", "compare.budgets=[1, 6]",
                                                 std::string("compare.calibration_seeds=") + seeds});
      const auto report = pipeline::Compare(options, SilentSink());
      const Comparison& comparison = report.comparison;
      CHECK(comparison.score == task.score);
      CHECK(comparison.samples == 64);
      REQUIRE(comparison.plans.size() == 4);  // exact and uniform
      for (const ComparedPlan& plan : comparison.plans) {
        CHECK(NamesIn(plan.metrics).front() == task.score);
        CHECK(plan.metrics.figures.front().value == Approx(plan.metrics.accuracy));
        CHECK(plan.drop.drop == Approx(comparison.float_model.accuracy - plan.metrics.accuracy).margin(1e-9));
        CHECK((plan.drop.ci_low <= plan.drop.drop && plan.drop.drop <= plan.drop.ci_high));
      }
      CHECK(comparison.plans[0].drop.drop > comparison.plans[2].drop.drop);  // one bit costs more
      CHECK(comparison.plans[0].drop.ci_low > 0.0);
      const std::string json = ReadFile(report.files.json, "json");
      CHECK_THAT(json, ContainsSubstring("\"score\": \"" + task.score) && !ContainsSubstring("brier"));
      CHECK_THAT(ReadFile(report.files.csv, "csv"), ContainsSubstring("," + task.score + ",nll,drop,"));
      // Measured once: what the folder keeps says the same.
      const auto again = pipeline::Compare(options, SilentSink());
      CHECK(again.measured == 0);
      CHECK(WithoutTimes(ReadFile(again.files.json, "json")) == WithoutTimes(json));
      const Plan plan = LoadPlan(folder.path / "out" / comparison.plans[2].file);
      CHECK(plan.verified->task == task.name);
    }
    const auto curve = pipeline::MeasureCurve(Options(folder.path, {"curve.points=3"}), SilentSink()).curve;
    CHECK(curve.score == task.score);
    REQUIRE(curve.plans.size() >= 2);
    CHECK(curve.plans.front().plan.verified->task == task.name);
    CHECK(curve.plans.front().plan.verified->quantized.accuracy < curve.plans.back().plan.verified->quantized.accuracy);
    CHECK_THAT(CurveHtml(curve), ContainsSubstring(task.score == "r2" ? "<th>100 R2</th>" : "<th>accuracy, %</th>"));
  }
}

TEST_CASE("every metric has a finite table for every task, and the posterior may be learned") {
  for (const Task& task : AllTasks()) {
    const Folder folder;
    Prepare(task, folder.path);
    for (const SensitivityMetric& metric : SensitivityMetrics()) {
      INFO(task.name << " by " << metric.name);
      const auto report =
          pipeline::Allocate(Options(folder.path, {std::string("sensitivity.metric=") + metric.name, "allocate.draws=0",
                                                   "allocate.allocator=exact", "sensitivity.samples=32"}),
                             SilentSink());
      CHECK(report.plan.achieved.predicted_loss_rise >= 0.0);
    }
    const auto learned = pipeline::Run(
        Options(folder.path, {"posterior.estimator=svi", "posterior.samples=64", "allocate.allocator=random-bits"}),
        SilentSink());
    CHECK(learned.plan.verified->task == task.name);
  }
}

TEST_CASE("learned rounding serves every task, and a plan states it") {
  for (const Task& task : AllTasks()) {
    INFO(task.name << " " << task.forward);
    const Folder folder;
    Prepare(task, folder.path);
    (void)pipeline::Run(Options(folder.path), SilentSink());
    const auto report = pipeline::Run(Options(folder.path, {"quantizer.learned_steps=8"}), SilentSink());
    for (const auto& stage : report.stages) {
      if (stage.name == "posterior" || stage.name == "sensitivity") CHECK(stage.reused);
      if (stage.name == "apply") CHECK_FALSE(stage.reused);
    }
    const std::string text = ReadFile(folder.path / "out/plan.yaml", "plan");
    CHECK_THAT(text, ContainsSubstring("learned_steps: 8, learned_samples: 16384, learned_rate: 0.006"));
    CHECK(DumpPlan(ParsePlan(text, "plan.yaml")) == text);
    REQUIRE(report.plan.learned);
    CHECK(report.plan.learned->images > 0);
    CHECK(report.plan.learned->kept == (report.plan.learned->after < report.plan.learned->before));
    const auto again = pipeline::Run(Options(folder.path, {"quantizer.learned_steps=8"}), SilentSink());
    REQUIRE(again.plan.learned);  // from the folder
    CHECK(again.plan.learned->after == report.plan.learned->after);
    CHECK_FALSE(pipeline::Run(Options(folder.path), SilentSink()).plan.learned);
  }
}

TEST_CASE("what measures classifiers only says so in one line") {
  const Folder folder;
  Prepare(AllTasks().front(), folder.path);
  const auto refused = [&](const std::function<void()>& command) {
    try {
      command();
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::kUsage);
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK_THAT(refused([&] {
               pipeline::RankOptions rank;
               rank.recipe = Options(folder.path);
               (void)pipeline::RankMetrics(rank, SilentSink());
             }),
             ContainsSubstring("is for classification, and data.task is segmentation"));
  CHECK_THAT(refused([&] { (void)pipeline::Bayes(Options(folder.path), SilentSink()); }),
             ContainsSubstring("bitplan bayes is for classification"));
  CHECK_THAT(refused([&] {
               (void)pipeline::Run(Options(folder.path, {"model.file=", "model.architecture=lenet5"}), SilentSink());
             }),
             ContainsSubstring("is for classification"));
  CHECK_THAT(refused([&] { (void)pipeline::Run(Options(folder.path, {"data.task=segments"}), SilentSink()); }),
             ContainsSubstring("segmentation"));
}

TEST_CASE("outputs that are not those of the task are refused with what would be") {
  const Folder folder;
  Prepare(AllTasks().front(), folder.path);
  const auto complaint = [&](const std::string& task) {
    try {
      (void)pipeline::Run(Options(folder.path, {"data.task=" + task}), SilentSink());
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::kData);
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK_THAT(complaint("tokens"), ContainsSubstring("logits [N, positions..., classes]"));
  CHECK_THAT(complaint("regression"), ContainsSubstring("outputs of the shape of the targets"));
  CHECK_THAT(complaint("multi-label"), ContainsSubstring("labels are [N, L]"));
  CHECK_THAT(complaint("classification"), ContainsSubstring("labels are [N] class numbers"));
}

}  // namespace
}  // namespace bitplan
