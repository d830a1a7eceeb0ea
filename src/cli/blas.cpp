#include "cli/blas.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>

namespace bitplan::cli {

std::string BlasLibrary() {
  void* product = dlsym(RTLD_DEFAULT, "sgemm_");  // what LibTorch calls, by the same order of search
  Dl_info info{};
  if (product == nullptr || dladdr(product, &info) == 0 || info.dli_fname == nullptr) return "";
  std::error_code failure;
  const auto real = std::filesystem::canonical(info.dli_fname, failure);
  return failure ? info.dli_fname : real.string();
}

bool IsReferenceBlas(const std::string& library) {
  constexpr std::array<const char*, 7> kTuned = {"openblas", "mkl", "blis", "atlas", "armpl", "flexiblas", "nvpl"};
  std::string path = library;
  std::transform(path.begin(), path.end(), path.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  // The file and the folder that holds it: further up anything may be called anything.
  const std::filesystem::path file(path);
  const std::string name = file.filename().string();
  if (name.rfind("libblas", 0) != 0 && name.rfind("librefblas", 0) != 0) return false;
  const std::string near = file.parent_path().filename().string() + "/" + name;
  return std::none_of(kTuned.begin(), kTuned.end(),
                      [&](const char* tuned) { return near.find(tuned) != std::string::npos; });
}

std::string OpenBlasCore() {
  void* const found = dlsym(RTLD_DEFAULT, "openblas_get_corename");
  if (found == nullptr) return "";
  const char* const name = reinterpret_cast<const char* (*)()>(found)();
  return name == nullptr ? "" : name;
}

Vectors OwnVectors() {
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return Vectors::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Vectors::kAvx2;
#endif
  return Vectors::kOther;
}

std::string FittingKernels(const std::string& core, Vectors vectors) {
  constexpr std::array<const char*, 15> kWithoutAvx = {"Generic", "Katmai", "Coppermine", "Northwood", "Prescott",
                                                       "Banias",  "Atom",   "Core2",      "Penryn",    "Dunnington",
                                                       "Nehalem", "Athlon", "Opteron",    "Barcelona", "Bobcat"};
  constexpr std::array<const char*, 3> kWithAvx2 = {"Haswell", "Zen", "Excavator"};
  const auto is_one_of = [&](const auto& cores) {
    return std::any_of(cores.begin(), cores.end(), [&](const char* one) { return core == one; });
  };
  const bool old = is_one_of(kWithoutAvx);
  if (vectors == Vectors::kAvx512 && (old || is_one_of(kWithAvx2))) return "SkylakeX";
  return vectors == Vectors::kAvx2 && old ? "Haswell" : "";
}

}  // namespace bitplan::cli
