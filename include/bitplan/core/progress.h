// Where the library says how far it is. The library never prints: progress and log lines go to a sink that the caller
// passes in. `cli` draws bars with it; tests record it; `SilentSink()` drops everything.
#pragma once

#include <cstdint>
#include <string>

namespace bitplan {

class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  // A stage of `total` steps begins ("train epoch 3/8", "posterior"). `unit` names a step ("images").
  virtual void Begin(const std::string& stage, std::int64_t total, const std::string& unit) = 0;
  virtual void Advance(std::int64_t steps) = 0;
  // The stage ended; `summary` is one short phrase for the log ("loss 0.031, 14 s") or empty.
  virtual void End(const std::string& summary) = 0;
  virtual void Info(const std::string& line) = 0;
  virtual void Warn(const std::string& line) = 0;
};

[[nodiscard]] ProgressSink& SilentSink();

}  // namespace bitplan
