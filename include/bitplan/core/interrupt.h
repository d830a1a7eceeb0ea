// Co-operative stop. The signal handler of `main` sets the flag; long loops call ThrowIfInterrupted() once a step.
#pragma once

namespace bitplan {

// Async-signal-safe.
void RequestInterrupt() noexcept;
[[nodiscard]] bool InterruptRequested() noexcept;
void ClearInterrupt() noexcept;
// Throws Error(kInterrupted) once a stop has been requested.
void ThrowIfInterrupted();

}  // namespace bitplan
