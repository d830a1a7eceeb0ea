#include "bitplan/pipeline/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"

namespace bitplan::pipeline {
namespace {

constexpr int kManifestVersion = 1;

std::string FileState(const std::filesystem::path& file) {
  return std::to_string(std::filesystem::file_size(file)) + ":" + FileSha256(file);
}

int LockFolder(const std::filesystem::path& folder) {
  const auto file = folder / ".lock";
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    throw Error(ErrorKind::kIo, "cannot create " + file.string() + ": " + std::strerror(errno));
  }
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    ::close(descriptor);
    throw Error(ErrorKind::kIo, "output folder " + folder.string() +
                                    " is in use by another run of bitplan; wait for it or choose another --out");
  }
  return descriptor;
}

}  // namespace

std::string FileSha256(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error(ErrorKind::kNotFound, "cannot open " + file.string());
  Sha256 hash;
  std::vector<char> buffer(1 << 20);
  while (stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || stream.gcount() > 0) {
    hash.Update(buffer.data(), static_cast<std::size_t>(stream.gcount()));
  }
  return hash.Hex();
}

RunFolder::RunFolder(std::filesystem::path folder) : folder_(std::move(folder)) {
  EnsureWritableFolder(folder_);
  lock_ = LockFolder(folder_);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored)) {
    if (entry.path().extension() == ".tmp") std::filesystem::remove(entry.path(), ignored);
  }
  try {
    Load();
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

std::optional<StageRecord> RunFolder::Find(const std::string& stage, const std::string& input) const {
  const auto found = stages_.find(stage);
  if (found == stages_.end() || found->second.record.input != input) return std::nullopt;
  for (const auto& [name, state] : found->second.files) {
    std::error_code missing;
    if (!std::filesystem::is_regular_file(File(name), missing) || FileState(File(name)) != state) return std::nullopt;
  }
  return found->second.record;
}

bool RunFolder::Wrote(const std::string& stage, const std::string& name) const {
  std::error_code missing;
  const auto found = stages_.find(stage);
  if (found == stages_.end() || !std::filesystem::is_regular_file(File(name), missing)) return false;
  const auto file = found->second.files.find(name);
  return file != found->second.files.end() && file->second == FileState(File(name));
}

void RunFolder::Complete(const std::string& stage, const StageRecord& record, const std::vector<std::string>& files) {
  Entry entry{record, {}};
  for (const auto& name : files) entry.files[name] = FileState(File(name));
  stages_[stage] = std::move(entry);
  Save();
}

// It is written in one piece, so a run that was killed leaves none that cannot be read.
void RunFolder::Load() {
  const auto file = File("manifest.json");
  if (!std::filesystem::exists(file)) return;
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorKind::kData, file.string() + " " + what + "; remove it to run every stage again");
  };
  const auto manifest = nlohmann::json::parse(ReadFile(file, "manifest"), nullptr, false);
  if (!manifest.is_object() || !manifest.contains("bitplan")) refuse("is damaged");
  if (manifest.at("bitplan") != kManifestVersion) refuse("is of another version of bitplan");
  try {
    for (const auto& [stage, item] : manifest.at("stages").items()) {
      stages_[stage] = {{item.at("input"), item.at("content"), item.at("facts").dump(), item.at("seconds")},
                        item.at("files").get<std::map<std::string, std::string>>()};
    }
  } catch (const nlohmann::json::exception&) {
    refuse("is damaged");
  }
}

void RunFolder::Save() const {
  nlohmann::ordered_json stages = nlohmann::ordered_json::object();
  for (const auto& [stage, entry] : stages_) {
    stages[stage] = {{"input", entry.record.input},
                     {"content", entry.record.content},
                     {"facts", nlohmann::ordered_json::parse(entry.record.facts)},
                     {"seconds", entry.record.seconds},
                     {"files", entry.files}};
  }
  const nlohmann::ordered_json manifest = {{"bitplan", kManifestVersion}, {"stages", stages}};
  WriteFileAtomically(File("manifest.json"), manifest.dump(2) + "\n");
}

}  // namespace bitplan::pipeline
