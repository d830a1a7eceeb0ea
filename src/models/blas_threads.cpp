#include "models/blas_threads.h"

#include <dlfcn.h>

namespace bitplan {

int SetBlasThreads(int count) {
  const auto get = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "openblas_get_num_threads"));
  const auto set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
  if (get == nullptr || set == nullptr) return 0;
  const int before = get();
  if (count > 0) set(count);
  return before;
}

}  // namespace bitplan
