#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "bitplan/core/error.h"
#include "fuzz/targets.h"

namespace bitplan::fuzz {
namespace {

class OwnFolder {
 public:
  OwnFolder() {
    std::error_code ignored;
    const std::filesystem::path memory = "/dev/shm";
    const bool in_memory = std::filesystem::is_directory(memory, ignored) && ::access(memory.c_str(), W_OK | X_OK) == 0;
    std::string name = ((in_memory ? memory : std::filesystem::temp_directory_path()) / "bitplan-fuzz-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
    path = name;
  }
  ~OwnFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  OwnFolder(const OwnFolder&) = delete;
  OwnFolder& operator=(const OwnFolder&) = delete;

  std::filesystem::path path;
};

}  // namespace

void ParseOne(const std::function<void()>& parse) {
  try {
    parse();
  } catch (const Error& error) {
    const std::string message = error.what();
    if (message.empty()) throw std::logic_error("an error says nothing");
    if (message.find_first_of("\r\n") != std::string::npos) {
      throw std::logic_error("an error has several lines: " + message);
    }
    if (error.kind() == ErrorKind::kInternal) throw std::logic_error("a file is taken for a bug: " + message);
  }
}

std::filesystem::path ScratchFolder() {
  static const OwnFolder folder;
  return folder.path;
}

std::filesystem::path FileOf(const std::string& name, std::string_view bytes) {
  const auto file = ScratchFolder() / name;
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw std::runtime_error("cannot write " + file.string());
  return file;
}

}  // namespace bitplan::fuzz
