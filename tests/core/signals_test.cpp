#include <array>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "support/catch.h"

using namespace bitplan;

TEST_CASE("every kind of error has the documented exit code") {
  const std::array<std::pair<ErrorKind, int>, 7> codes = {{{ErrorKind::kUsage, 64},
                                                           {ErrorKind::kData, 65},
                                                           {ErrorKind::kNotFound, 66},
                                                           {ErrorKind::kInternal, 70},
                                                           {ErrorKind::kIo, 74},
                                                           {ErrorKind::kInfeasible, 75},
                                                           {ErrorKind::kInterrupted, 130}}};
  for (const auto& [kind, code] : codes) CHECK(ExitCode(kind) == code);
}

TEST_CASE("a requested stop is thrown once work looks, and only then") {
  ClearInterrupt();
  CHECK_NOTHROW(ThrowIfInterrupted());
  RequestInterrupt();
  CHECK(InterruptRequested());
  try {
    ThrowIfInterrupted();
    FAIL("did not throw");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kInterrupted);
  }
  ClearInterrupt();
  CHECK_FALSE(InterruptRequested());
}
