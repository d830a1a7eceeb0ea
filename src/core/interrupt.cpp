#include "bitplan/core/interrupt.h"

#include <atomic>

#include "bitplan/core/error.h"

namespace bitplan {
namespace {
std::atomic<bool> requested{false};
}  // namespace

void RequestInterrupt() noexcept { requested.store(true, std::memory_order_relaxed); }
bool InterruptRequested() noexcept { return requested.load(std::memory_order_relaxed); }
void ClearInterrupt() noexcept { requested.store(false, std::memory_order_relaxed); }

void ThrowIfInterrupted() {
  if (InterruptRequested()) throw Error(ErrorKind::kInterrupted, "interrupted; the same command continues from here");
}

}  // namespace bitplan
