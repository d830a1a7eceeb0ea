// What the program sets up on the machine before it computes.
#pragma once

#include <string>

#include "bitplan/core/progress.h"

namespace bitplan::cli {

// Threads of LibTorch and of OpenBLAS; 0: as many as there are cores. LibTorch itself may start with one, OpenBLAS with
// all: two products at once on one core then wait for each other.
void UseThreads(int threads);

// auto and cpu run on the processor; cuda is Error(kUsage), because nothing here runs there.
void UseDevice(const std::string& device);

// Warns when LibTorch multiplies matrices by the reference BLAS.
void WarnWhenBlasIsSlow(ProgressSink& progress);

}  // namespace bitplan::cli
