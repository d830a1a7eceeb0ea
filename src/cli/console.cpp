#include "cli/console.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace bitplan::cli {
namespace {

constexpr int kBarWidth = 24;
constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::seconds kPlainLine{15};

double Seconds(std::chrono::steady_clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

std::string Duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole >= 3600) return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
  if (whole >= 60) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{:.1f} s", seconds);
}

Console::Console(bool quiet) : quiet_(quiet), terminal_(::isatty(STDERR_FILENO) != 0) {}

Console::~Console() { Wipe(); }

void Console::Begin(const std::string& stage, std::int64_t total, const std::string& unit) {
  stage_ = stage;
  unit_ = unit;
  total_ = total;
  done_ = 0;
  start_ = Clock::now();
  last_draw_ = start_;
}

void Console::Advance(std::int64_t steps) {
  done_ += steps;
  const auto now = Clock::now();
  if (quiet_ || now - last_draw_ < (terminal_ ? Clock::duration(kRedraw) : Clock::duration(kPlainLine))) return;
  last_draw_ = now;
  Draw();
}

void Console::Draw() {
  const double elapsed = std::max(1e-9, Seconds(Clock::now() - start_));
  const double rate = static_cast<double>(done_) / elapsed;
  const double share = total_ > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_)) : 0.0;
  const auto left = rate > 0.0 ? Duration(static_cast<double>(std::max<std::int64_t>(0, total_ - done_)) / rate) : "?";
  const auto state = fmt::format("{}/{} {}, {:.0f}/s, {} left", done_, total_, unit_, rate, left);
  if (!terminal_) {
    fmt::print(stderr, "{}: {}\n", stage_, state);
    return;
  }
  const auto filled = static_cast<int>(share * kBarWidth);
  fmt::print(stderr, "\r\033[K{} [{:#<{}}{:.<{}}] {}", stage_, "", filled, "", kBarWidth - filled, state);
  std::fflush(stderr);
  drawn_ = true;
}

void Console::Wipe() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
  drawn_ = false;
}

void Console::End(const std::string& summary) {
  Wipe();
  if (quiet_) return;
  const auto said = summary.empty() ? Duration(Seconds(Clock::now() - start_)) : summary;
  fmt::print(stderr, "{}: {} {}, {}\n", stage_, done_, unit_, said);
}

void Console::Info(const std::string& line) {
  Wipe();
  if (!quiet_) fmt::print(stderr, "{}\n", line);
}

void Console::Warn(const std::string& line) {
  Wipe();
  fmt::print(stderr, "warning: {}\n", line);
}

}  // namespace bitplan::cli
