#define CATCH_CONFIG_RUNNER
#include "support/catch_torch.h"

int main(int argc, char** argv) {
  at::set_num_threads(2);
  return Catch::Session().run(argc, argv);
}
