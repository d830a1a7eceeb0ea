#include "training/tasks.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "models/blas_threads.h"

namespace bitplan {
namespace {

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

}  // namespace

void RunTasks(const std::vector<Task>& tasks, ProgressSink& progress) {
  const int threads = at::get_num_threads(), blas_threads = SetBlasThreads(1);  // every thread is a task already
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

}  // namespace bitplan
