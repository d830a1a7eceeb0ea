// Runs the built program in a folder of its own and keeps what it said.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace bitplan::test {

struct Outcome {
  int code = -1;    // exit code, or 128 + signal
  std::string out;  // stdout
  std::string err;  // stderr
};

// A folder that is removed at the end, with a little data set and a recipe that takes about a second:
// 300 noisy 28x28 images of four classes, lenet-300-100.
class Workplace {
 public:
  Workplace();
  ~Workplace();
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;

  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] std::string recipe() const { return (folder_ / "tiny.yaml").string(); }
  // Writes the recipe again with one piece of its text replaced.
  void EditRecipe(const std::string& from, const std::string& to) const;

  // Runs `bitplan arguments...` here, two threads, BITPLAN_DATA = here. `file_limit`: the largest file the program may
  // write, in bytes (0: any).
  [[nodiscard]] Outcome Bitplan(const std::vector<std::string>& arguments, std::int64_t file_limit = 0) const;
  // Sends `signal` as soon as `when` holds (asked every millisecond), unless the program ends before.
  [[nodiscard]] Outcome BitplanStopped(const std::vector<std::string>& arguments, int signal,
                                       const std::function<bool()>& when) const;

 private:
  [[nodiscard]] pid_t Start(const std::vector<std::string>& arguments, std::int64_t file_limit) const;
  [[nodiscard]] std::filesystem::path Said(const std::string& stream, pid_t process) const;
  [[nodiscard]] Outcome Collect(pid_t process) const;

  std::filesystem::path folder_;
};

[[nodiscard]] std::string ReadText(const std::filesystem::path& file);
void WriteText(const std::filesystem::path& file, const std::string& text);
[[nodiscard]] std::string Replaced(std::string text, const std::string& from, const std::string& to);

// npy version 1.0, C order.
void WriteNpy(const std::filesystem::path& file, const std::string& type, const std::vector<std::int64_t>& shape,
              const std::string& bytes);

// True when the folder holds no half-written file and no plan.
[[nodiscard]] bool NothingHalfWritten(const std::filesystem::path& folder);

// The error of an outcome: the last line of stderr when it is the only one that begins with "bitplan: ", else "".
[[nodiscard]] std::string ErrorLine(const Outcome& outcome);

}  // namespace bitplan::test
