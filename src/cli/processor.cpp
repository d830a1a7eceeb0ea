#include "cli/processor.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <thread>

#include "bitplan/core/error.h"
#include "cli/blas.h"

namespace bitplan::cli {
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
  const std::string library = BlasLibrary();
  if (!IsReferenceBlas(library)) return;
  progress.Warn("matrix products are made by the reference BLAS (" + library +
                "), which is slow; install a tuned one (libopenblas-dev)");
}

}  // namespace bitplan::cli
