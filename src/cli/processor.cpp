#include "cli/processor.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "bitplan/core/error.h"
#include "cli/blas.h"
#include "models/blas_threads.h"

namespace bitplan::cli {

void UseThreads(int threads) {
  const int count = threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  at::set_num_threads(count);
  const bool chosen = threads <= 0 && std::getenv("OPENBLAS_NUM_THREADS") != nullptr;
  SetBlasThreads(chosen ? 0 : count);
}

void UseDevice(const std::string& device) {
  if (device == "auto" || device == "cpu") return;
  if (device == "cuda") {
    throw Error(ErrorKind::kUsage, "--device cuda: this build computes on the processor only; use --device cpu");
  }
  throw Error(ErrorKind::kUsage, "--device " + device + ": unknown; known: auto, cpu, cuda");
}

void WarnWhenBlasIsSlow(ProgressSink& progress) {
  const std::string library = BlasLibrary();
  if (!IsReferenceBlas(library)) return;
  progress.Warn("matrix products are made by the reference BLAS (" + library +
                "), which is slow; install a tuned one (libopenblas-dev)");
}

}  // namespace bitplan::cli
