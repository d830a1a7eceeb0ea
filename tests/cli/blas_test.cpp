#include "cli/blas.h"

#include "support/catch_torch.h"

using bitplan::cli::BlasLibrary;
using bitplan::cli::IsReferenceBlas;

TEST_CASE("the reference BLAS is told by its file, wherever a distribution keeps it") {
  CHECK(IsReferenceBlas("/usr/lib/x86_64-linux-gnu/blas/libblas.so.3.11.0"));
  CHECK(IsReferenceBlas("/usr/lib/aarch64-linux-gnu/blas/libblas.so.3.12.1"));
  CHECK(IsReferenceBlas("/usr/lib64/libblas.so.3"));
  CHECK(IsReferenceBlas("/opt/lapack/lib/librefblas.so"));
  CHECK(IsReferenceBlas("/home/mkl-user/openblas-experiments/lib/libblas.so.3"));  // a folder further up says nothing
}

TEST_CASE("no tuned BLAS is taken for the reference one") {
  CHECK_FALSE(IsReferenceBlas("/usr/lib/x86_64-linux-gnu/openblas-pthread/libblas.so.3"));
  CHECK_FALSE(IsReferenceBlas("/usr/lib/x86_64-linux-gnu/openblas-openmp/libblas.so.3"));
  CHECK_FALSE(IsReferenceBlas("/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblasp-r0.3.21.so"));
  CHECK_FALSE(IsReferenceBlas("/usr/lib/x86_64-linux-gnu/atlas/libblas.so.3.10.3"));
  CHECK_FALSE(IsReferenceBlas("/usr/lib/x86_64-linux-gnu/blis-pthread/libblas.so.4"));
  CHECK_FALSE(IsReferenceBlas("/opt/intel/mkl/lib/intel64/libmkl_rt.so.2"));
  CHECK_FALSE(IsReferenceBlas("/usr/lib64/libflexiblas.so.3.4"));
  CHECK_FALSE(IsReferenceBlas("/opt/libtorch/lib/libtorch_cpu.so"));  // with a BLAS inside
  CHECK_FALSE(IsReferenceBlas(""));
}

TEST_CASE("the library behind LibTorch's products is found, and is a file") {
  const auto library = BlasLibrary();
  INFO(library);
  if (!library.empty()) CHECK(library.find(".so") != std::string::npos);  // empty: a LibTorch that hides its BLAS
}

TEST_CASE("an OpenBLAS older than the processor is told which kernels fit, any other keeps its own") {
  using bitplan::cli::FittingKernels;
  using bitplan::cli::Vectors;
  CHECK(FittingKernels("Prescott", Vectors::kAvx512) == "SkylakeX");
  CHECK(FittingKernels("Prescott", Vectors::kAvx2) == "Haswell");
  CHECK(FittingKernels("Nehalem", Vectors::kAvx2) == "Haswell");
  CHECK(FittingKernels("Prescott", Vectors::kOther).empty());
  CHECK(FittingKernels("Zen", Vectors::kAvx512) == "SkylakeX");
  CHECK(FittingKernels("Haswell", Vectors::kAvx512) == "SkylakeX");
  CHECK(FittingKernels("SkylakeX", Vectors::kAvx512).empty());
  CHECK(FittingKernels("Cooperlake", Vectors::kAvx512).empty());
  CHECK(FittingKernels("Zen", Vectors::kAvx2).empty());
  CHECK(FittingKernels("", Vectors::kAvx512).empty());
}

TEST_CASE("kernels are asked for that this OpenBLAS has") {
  const auto core = bitplan::cli::OpenBlasCore();
  const auto kernels = bitplan::cli::FittingKernels(core, bitplan::cli::OwnVectors());
  INFO(core << " -> " << kernels);
  if (!kernels.empty()) CHECK(bitplan::cli::FittingKernels(kernels, bitplan::cli::OwnVectors()).empty());
}
