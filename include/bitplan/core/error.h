// One exception type with a kind. Every failure that a user can meet is thrown as an Error whose message is one line:
// what is wrong, where, and what to do. `main` holds the only handler and turns the kind into the exit code.
#pragma once

#include <stdexcept>
#include <string>

namespace bitplan {

enum class ErrorKind {
  kUsage,        // command line or recipe: unknown key, value out of range, unknown name
  kData,         // input exists but cannot be used: truncated, wrong magic, NaN weights, plan for another model
  kNotFound,     // recipe, model, data or plan file missing
  kInternal,     // a bug in bitplan
  kIo,           // cannot write: read-only folder, disk full
  kInfeasible,   // the budget cannot be met
  kInterrupted,  // Ctrl-C
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  [[nodiscard]] ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// Exit code of the program for an error: 64 usage, 65 data, 66 not found, 70 internal, 74 io, 75 infeasible,
// 130 interrupted.
[[nodiscard]] int ExitCode(ErrorKind kind);

}  // namespace bitplan
