#include "bitplan/pipeline/bayes.h"

#include <ATen/Parallel.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/types.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "bitplan/bayes/predict.h"
#include "bitplan/core/error.h"
#include "bitplan/core/statistics.h"
#include "pipeline/bayes_stages.h"
#include "pipeline/checks.h"
#include "pipeline/oddities.h"

namespace bitplan::pipeline {
namespace {

constexpr int kResamples = 2000;

// What a task says, one line at a time, with its name: several run side by side.
class TaskProgress : public ProgressSink {
 public:
  TaskProgress(std::string name, ProgressSink& out, std::mutex& mutex)
      : name_(std::move(name)), out_(out), mutex_(mutex) {}
  void Begin(const std::string& stage, std::int64_t, const std::string&) override { stage_ = stage; }
  void Advance(std::int64_t) override {}
  void End(const std::string& summary) override { Info(stage_ + (summary.empty() ? "" : ": " + summary)); }
  void Info(const std::string& line) override {
    const std::lock_guard lock(mutex_);
    out_.Info(name_ + ": " + line);
  }
  void Warn(const std::string& line) override {
    const std::lock_guard lock(mutex_);
    out_.Warn(name_ + ": " + line);
  }

 private:
  std::string name_, stage_;
  ProgressSink& out_;
  std::mutex& mutex_;
};

struct Task {
  int rank;  // tasks of lower rank come first
  std::string name;
  std::function<void(ProgressSink& progress)> work;
};

// OpenBLAS keeps threads of its own beside those of LibTorch; here every thread is a task already. The number it had,
// or 0 when another library multiplies.
int SetBlasThreads(int count) {
  const auto get = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "openblas_get_num_threads"));
  const auto set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
  if (get == nullptr || set == nullptr) return 0;
  const int before = get();
  if (count > 0) set(count);
  return before;
}

// Runs the tasks in their order on all threads, each on one: the networks are small, and one network on two threads is
// slower than on one. The first failure is thrown when all have stopped.
void RunTasks(const std::vector<Task>& tasks, ProgressSink& progress) {
  const int threads = at::get_num_threads(), blas_threads = SetBlasThreads(1);
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    at::set_num_threads(1);
    const torch::jit::GraphOptimizerEnabledGuard plain_graphs(false);
    for (std::size_t t = next++; t < tasks.size(); t = next++) {
      try {
        TaskProgress out(fmt::format("{}/{} {}", t + 1, tasks.size(), tasks[t].name), progress, mutex);
        tasks[t].work(out);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        next = tasks.size();
      }
    }
  };
  std::vector<std::thread> workers;
  for (int w = 0; w < std::min<int>(threads, static_cast<int>(tasks.size())); ++w) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  at::set_num_threads(threads);
  SetBlasThreads(blas_threads);
  if (failure) std::rethrow_exception(failure);
}

BayesDrift Drift(const std::vector<RelativeChange>& changes) {
  const auto n = static_cast<double>(changes.size());
  BayesDrift drift;
  double variance = 0.0, spread = 0.0;
  for (const RelativeChange& change : changes) {
    const double part = change.standard_error * change.standard_error / (n * n);
    drift.change += change.value / n;
    variance += part;
    if (part > 0.0) spread += part * part / change.degrees;
    if (std::abs(change.value) > std::abs(drift.worst)) drift.worst = change.value;
  }
  // Degrees of freedom of a sum of variances that need not be equal, after Satterthwaite (1946).
  const double half = spread > 0.0 ? StudentQuantile975(variance * variance / spread) * std::sqrt(variance) : 0.0;
  drift.ci_low = drift.change - half;
  drift.ci_high = drift.change + half;
  return drift;
}

class UncertaintyComparer {
 public:
  UncertaintyComparer(const BayesSetup& setup, const BayesFolder& folder) : setup_(setup), folder_(folder) {}

  void Compare(const BayesRow& reference, BayesRow& row) const {
    std::map<std::string, std::pair<torch::Tensor, torch::Tensor>> correct;  // sums over the seeds
    std::map<std::string, torch::Tensor> labels;
    std::map<std::string, std::vector<RelativeChange>> aleatoric, epistemic;  // of every seed
    for (std::size_t s = 0; s < row.seeds.size(); ++s) {
      const auto before = PerImage(row.seeds[s].seed, "float"), after = PerImage(row.seeds[s].seed, row.name);
      for (const auto& [role, values] : before) {
        auto& [sum_before, sum_after] = correct[role];
        sum_before = sum_before.defined() ? sum_before + values[0] : values[0];
        sum_after = sum_after.defined() ? sum_after + after.at(role)[0] : after.at(role)[0];
        labels[role] = values[1];
        const auto& f = reference.seeds[s].splits.at(role);
        const auto& q = row.seeds[s].splits.at(role);
        aleatoric[role].push_back(CompareMeans(f.aleatoric, q.aleatoric, f.aleatoric_without, q.aleatoric_without));
        epistemic[role].push_back(CompareMeans(f.epistemic, q.epistemic, f.epistemic_without, q.epistemic_without));
      }
    }
    for (const auto& [role, changes] : aleatoric) row.aleatoric_drift[role] = Drift(changes);
    for (const auto& [role, changes] : epistemic) row.epistemic_drift[role] = Drift(changes);
    const auto n = static_cast<double>(row.seeds.size());
    const auto drop = [&](const torch::Tensor& before, const torch::Tensor& after, const torch::Tensor& counts) {
      const ClusteredDrop d = CompareClustered(before / n, after / n, counts, kResamples, setup_.recipe.seed);
      return BayesDrop{d.drop, d.ci_low, d.ci_high};
    };
    std::vector<torch::Tensor> before, after, counts;
    for (const char* role : {kClean, kAmbiguous}) {
      if (!correct.contains(role)) continue;
      row.drops[role] = drop(correct[role].first, correct[role].second, labels[role]);
      before.push_back(correct[role].first);
      after.push_back(correct[role].second);
      counts.push_back(labels[role]);
    }
    row.drops["all"] = drop(torch::cat(before), torch::cat(after), torch::cat(counts));
  }

  // The histograms: a joint row at four bits where there is one, fine-tuned where it is.
  void Picture(BayesComparison& comparison) const {
    const BayesRow* chosen = nullptr;
    int best = -1;
    for (const BayesRow& row : comparison.rows) {
      if (row.scheme.empty()) continue;
      const int score = 4 * (row.scheme == "jq") + 2 * (row.bits == 4.0) + (row.stage == "fine-tuned");
      if (score > best) {
        best = score;
        chosen = &row;
      }
    }
    if (chosen == nullptr) return;
    comparison.pictured = chosen->name;
    const auto before = PerImage(setup_.recipe.seed, "float"), after = PerImage(setup_.recipe.seed, chosen->name);
    for (const auto& [role, data] : setup_.Roles()) {
      comparison.histograms.push_back(
          {data, before.at(role)[2], before.at(role)[3], after.at(role)[2], after.at(role)[3]});
    }
  }

  // Of means and standard deviations, the mean over the seeds.
  [[nodiscard]] double AverageBits(const BayesRow& row) const {
    double bits = 0.0, parameters = 0.0;
    for (const auto& seed : row.seeds) {
      for (std::size_t l = 0; l < seed.widths.size(); ++l) {
        const auto weights = static_cast<double>(setup_.base.layers[l].weights());
        bits += weights * (seed.widths[l].mean + seed.widths[l].sigma);
        parameters += 2.0 * weights;
      }
    }
    return bits / parameters;
  }

 private:
  [[nodiscard]] std::map<std::string, torch::Tensor> PerImage(std::uint64_t seed, const std::string& name) const {
    return LoadPerImage(setup_, folder_.File(fmt::format("seed-{}/{}.pt", seed, name)));
  }

  const BayesSetup& setup_;
  const BayesFolder& folder_;
};

}  // namespace

namespace {

// What is odd about the float networks on the images that they are to know.
std::vector<std::string> NotesOn(const BayesRow& reference, const BayesSetup& setup) {
  Verification verified;
  verified.data = setup.Roles().front().second;
  verified.samples = setup.splits.front().images.labels.size(0);
  for (const auto& seed : reference.seeds) {
    verified.float_model.accuracy +=
        seed.splits.at(kClean).metrics.accuracy / static_cast<double>(reference.seeds.size());
  }
  Plan plan;
  plan.verified = verified;
  return Oddities(plan, {.classes = setup.data.train.classes});
}

}  // namespace

BayesReport Bayes(const RecipeOptions& options, ProgressSink& progress) {
  const BayesSetup setup(options);
  for (const auto& warning : setup.warnings) progress.Warn(warning);
  const auto& bayes = setup.recipe.bayes;
  BayesFolder folder(CheckedFolder(options, setup.recipe), progress);
  const auto specs = Rows(bayes);
  const bool has_plan = bayes.plan.average_bits > 0.0;

  std::vector<BayesRow> rows = {{.name = "float"}};
  for (const RowSpec& spec : specs) {
    rows.push_back({.name = spec.name,
                    .scheme = spec.scheme,
                    .stage = spec.stage,
                    .sigma_scale = spec.sigma_scale,
                    .bits = spec.bits});
  }
  if (has_plan) {
    rows.push_back({.name = fmt::format("plan-{:g}", bayes.plan.average_bits),
                    .scheme = "plan",
                    .stage = "fine-tuned",
                    .sigma_scale = "log",
                    .bits = bayes.plan.average_bits});
  }
  for (BayesRow& row : rows) row.seeds.resize(static_cast<std::size_t>(bayes.seeds));
  std::list<BayesSeed> seeds;
  // Every row needs the float network; then what takes longest, so that no thread is left with it at the end.
  enum Rank { kFloat, kPlan, kFineTuned, kRounded };
  std::vector<Task> tasks;
  for (std::size_t s = 0; s < static_cast<std::size_t>(bayes.seeds); ++s) {
    const std::uint64_t number = setup.recipe.seed + s;
    BayesSeed& seed = seeds.emplace_back(setup, folder, number);
    const auto add = [&](Rank rank, std::size_t r, auto work) {
      tasks.push_back({rank, fmt::format("seed {} {}", number, rows[r].name),
                       [&rows, r, s, work](ProgressSink& sink) { rows[r].seeds[s] = work(sink); }});
    };
    add(kFloat, 0, [&seed](ProgressSink& sink) { return seed.Float(sink); });
    for (std::size_t r = 0; r < specs.size(); ++r) {
      add(specs[r].stage == "trained" ? kRounded : kFineTuned, 1 + r,
          [&seed, &spec = specs[r]](ProgressSink& sink) { return seed.Row(spec, sink); });
    }
    if (has_plan) {
      add(kPlan, rows.size() - 1,
          [&seed, name = rows.back().name](ProgressSink& sink) { return seed.Plan(name, sink); });
    }
  }
  std::ranges::stable_sort(tasks, {}, &Task::rank);
  RunTasks(tasks, progress);

  BayesReport report;
  auto& comparison = report.comparison;
  comparison.name = setup.recipe.name;
  comparison.model = setup.model_name;
  for (const auto& layer : setup.base.layers) comparison.layers.push_back(layer.name);
  comparison.data = setup.Roles();
  for (const auto& split : setup.splits) comparison.images[split.role] = split.images.size();
  comparison.draws = bayes.draws;
  const UncertaintyComparer comparer(setup, folder);
  for (std::size_t r = 1; r < rows.size(); ++r) comparer.Compare(rows[0], rows[r]);
  if (has_plan) rows.back().bits = comparer.AverageBits(rows.back());  // a cap may have raised the budget
  comparison.rows = std::move(rows);
  comparer.Picture(comparison);
  folder.WriteTogether(
      [&](const std::filesystem::path& place) { report.files = WriteBayesComparison(comparison, place); });
  report.notes = NotesOn(comparison.rows.front(), setup);
  report.folder = folder.path();
  report.stages = folder.statuses();
  return report;
}

}  // namespace bitplan::pipeline
