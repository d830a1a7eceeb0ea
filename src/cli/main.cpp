// The program: signals, and the only handler of errors.
#include <c10/util/Exception.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "cli/blas.h"
#include "cli/commands.h"
#include "models/torch_reason.h"

namespace {

// The first Ctrl-C asks the long loops to stop at a good place; the second does not wait for them.
extern "C" void OnStopSignal(int) {
  if (bitplan::InterruptRequested()) _exit(130);
  bitplan::RequestInterrupt();
}

// What a runtime reads before main, so that the program starts itself once more; whoever sets a variable keeps what he
// chose.
//   OpenMP's idle threads spin by default and take time from the working ones wherever cores are shared (training LeNet
//   on two virtual cores: 15.6 s an epoch spinning, 9.7 s waiting).
//   Activations are given back and taken again by every operation, and the kernel clears them in pages of 4 KiB unless
//   it is asked for large ones (a relu over 64 MiB on two virtual cores: 52 ms, 15 ms with large pages). Those of up to
//   64 MiB stay with the program (ResNet-20, a plan rounded, corrected and measured: 87 s of one core, 81 s).
//   An OpenBLAS older than the processor multiplies by kernels of 2004 (one product of 1500 x 1500: five times as slow)
//   or, on processors of AMD with AVX-512, by those for AVX2 (2000 x 2000: 105 GFLOP/s a core, 200 with AVX-512).
void SetUpRuntimes(char** argv) {
  const std::string kernels = bitplan::cli::FittingKernels(bitplan::cli::OpenBlasCore(), bitplan::cli::OwnVectors());
  const bool fitting = kernels.empty() || std::getenv("OPENBLAS_CORETYPE") != nullptr;
  if (std::getenv("OMP_WAIT_POLICY") != nullptr && std::getenv("GLIBC_TUNABLES") != nullptr && fitting) return;
  setenv("OMP_WAIT_POLICY", "passive", 0);
  setenv("GLIBC_TUNABLES",
         "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=67108864:glibc.malloc.trim_threshold=536870912", 0);
  if (!fitting) setenv("OPENBLAS_CORETYPE", kernels.c_str(), 1);
  execv("/proc/self/exe", argv);  // comes back only if it failed: then it is only slower
}

int Fail(std::string message, int code) {
  message.erase(message.find_last_not_of(" \r\n") + 1);
  for (char& c : message) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  std::fprintf(stderr, "bitplan: %s\n", message.c_str());
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  SetUpRuntimes(argv);
  struct sigaction stop {};
  stop.sa_handler = OnStopSignal;
  sigaction(SIGINT, &stop, nullptr);
  sigaction(SIGTERM, &stop, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe and a file-size limit are failed writes, reported as such
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return bitplan::cli::Main({argv + 1, argv + argc});
  } catch (const bitplan::Error& error) {
    return Fail(error.what(), bitplan::ExitCode(error.kind()));
  } catch (const std::bad_alloc&) {
    return Fail("out of memory", bitplan::ExitCode(bitplan::ErrorKind::kInternal));
  } catch (const c10::Error& error) {
    return Fail("internal error in LibTorch: " + bitplan::TorchReason(error),
                bitplan::ExitCode(bitplan::ErrorKind::kInternal));
  } catch (const std::exception& error) {
    return Fail("internal error: " + bitplan::TorchReason(error), bitplan::ExitCode(bitplan::ErrorKind::kInternal));
  }
}
