// Progress on stderr: a bar with rate and remaining time on a terminal, one plain line a stage otherwise.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "bitplan/core/progress.h"

namespace bitplan::cli {

class Console final : public ProgressSink {
 public:
  // `quiet` leaves nothing but warnings.
  explicit Console(bool quiet);
  ~Console() override;
  void Begin(const std::string& stage, std::int64_t total, const std::string& unit) override;
  void Advance(std::int64_t steps) override;
  void End(const std::string& summary) override;
  void Info(const std::string& line) override;
  void Warn(const std::string& line) override;

 private:
  using Clock = std::chrono::steady_clock;
  void Draw();
  void Wipe();

  bool quiet_, terminal_;
  bool drawn_ = false;
  std::string stage_, unit_;
  std::int64_t total_ = 0, done_ = 0;
  Clock::time_point start_, last_draw_;
};

// "1 h 02 min", "3 min 05 s", "12.3 s".
[[nodiscard]] std::string Duration(double seconds);

}  // namespace bitplan::cli
