// Small data files that the tests of this room write for themselves.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "bitplan/core/error.h"
#include "bitplan/core/options.h"

namespace bitplan::testing {

// A folder of its own, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "bitplan-data-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  std::filesystem::path Write(const std::string& name, const std::string& content) const {
    const auto file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << content;
    return file;
  }

 private:
  std::filesystem::path path_;
};

// Where the published data lies, if anywhere.
inline std::filesystem::path PublishedData() {
  const char* folder = std::getenv("BITPLAN_DATA");
  return folder != nullptr && *folder != '\0' ? std::filesystem::path(folder)
                                              : std::filesystem::path(BITPLAN_SOURCE_DIR) / "data";
}

inline std::string BigEndian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 255);
  return bytes;
}

struct Failure {
  bool thrown = false;
  ErrorKind kind = ErrorKind::kInternal;
  std::string message;
};

inline Failure FailureOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return {true, error.kind(), error.what()};
  }
  return {};
}

// Of a failure that is one line; empty where there is none.
inline std::string LineOf(const std::function<void()>& action) {
  const Failure failure = FailureOf(action);
  return failure.message.find('\n') == std::string::npos ? failure.message : "several lines: " + failure.message;
}

// Data of the user's own, in train and test with this ending.
inline DataOptions OwnData(const std::string& name, const std::string& ending = "") {
  DataOptions options;
  options.name = name;
  options.train = "train" + ending;
  options.test = "test" + ending;
  options.calibration = 0;
  return options;
}

}  // namespace bitplan::testing
