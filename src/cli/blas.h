// Which library multiplies matrices for LibTorch, told from the file it lies in: no clock, so a busy machine is no slow
// library.
#pragma once

#include <string>

namespace bitplan::cli {

// Where the library was found that serves LibTorch's products (symbolic links resolved), or empty.
[[nodiscard]] std::string BlasLibrary();

// True for the reference BLAS, which is about ten times slower than a tuned one: a libblas or librefblas of its own,
// outside of folders such as openblas-pthread, in which Debian keeps tuned libraries under the same file name.
// Anything that is not recognized, LibTorch's own library with a BLAS inside among it, is taken for tuned.
[[nodiscard]] bool IsReferenceBlas(const std::string& library);

// The processor whose kernels OpenBLAS took, as it names it ("Haswell"); empty where LibTorch multiplies by another
// BLAS.
[[nodiscard]] std::string OpenBlasCore();

enum class Vectors { kOther, kAvx2, kAvx512 };
// What this processor computes with.
[[nodiscard]] Vectors OwnVectors();

// OpenBLAS takes kernels without AVX, or for AMD without AVX-512, on a processor that came after its release. What
// OPENBLAS_CORETYPE must say for those that fit; empty where `core` is no such mistake.
[[nodiscard]] std::string FittingKernels(const std::string& core, Vectors vectors);

}  // namespace bitplan::cli
