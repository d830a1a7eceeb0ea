// Runs the examples of the core's headers with the installed library. plan.yaml lies in the folder.
#undef NDEBUG
#include <cassert>

#include "allocator_example.h"
#include "plan_example.h"

int main() {
  allocator_example();
  plan_example();
}
