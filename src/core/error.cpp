#include "bitplan/core/error.h"

namespace bitplan {

int ExitCode(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return 64;
    case ErrorKind::kData:
      return 65;
    case ErrorKind::kNotFound:
      return 66;
    case ErrorKind::kInternal:
      return 70;
    case ErrorKind::kIo:
      return 74;
    case ErrorKind::kInfeasible:
      return 75;
    case ErrorKind::kInterrupted:
      return 130;
  }
  return 70;
}

}  // namespace bitplan
