// Small networks side by side: each on one thread, because one network on two threads is slower than on one.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bitplan/core/progress.h"

namespace bitplan {

struct Task {
  int rank;  // tasks of lower rank come first
  std::string name;
  std::function<void(ProgressSink& progress)> work;
};

// Runs the tasks in their order on all threads, each on one. What a task says comes line by line, with its name. The
// first failure is thrown when all have stopped.
void RunTasks(const std::vector<Task>& tasks, ProgressSink& progress);

}  // namespace bitplan
