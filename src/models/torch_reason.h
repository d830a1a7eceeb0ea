// What LibTorch's exceptions say, reduced to one line a user can read.
#pragma once

#include <exception>
#include <string>

namespace bitplan {

// Drops backtraces and TorchScript tracebacks: the last "RuntimeError: ..." line, else the first line.
[[nodiscard]] std::string TorchReason(const std::exception& error);

}  // namespace bitplan
