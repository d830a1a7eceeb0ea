#include "cli/processor.h"

#include <fmt/core.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "bitplan/core/error.h"

namespace bitplan::cli {
namespace {

constexpr double kSlowGflops = 12.0;

}  // namespace

void UseThreads(int threads) {
  at::set_num_threads(threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
}

void UseDevice(const std::string& device) {
  if (device == "auto" || device == "cpu") return;
  if (device == "cuda") {
    throw Error(ErrorKind::kUsage, "--device cuda: this build computes on the processor only; use --device cpu");
  }
  throw Error(ErrorKind::kUsage, "--device " + device + ": unknown; known: auto, cpu, cuda");
}

void WarnWhenBlasIsSlow(ProgressSink& progress) {
  constexpr std::int64_t kSize = 512;
  const torch::NoGradGuard no_grad;
  const auto matrix = torch::ones({kSize, kSize});
  double best = 1e9;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    (void)torch::mm(matrix, matrix);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const double gflops = 2.0 * kSize * kSize * kSize / best * 1e-9;
  if (gflops < kSlowGflops) {
    progress.Warn(fmt::format("matrix products run at {:.1f} GFLOP/s; install a fast BLAS (libopenblas-dev)", gflops));
  }
}

}  // namespace bitplan::cli
