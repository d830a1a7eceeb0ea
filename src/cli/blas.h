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

}  // namespace bitplan::cli
