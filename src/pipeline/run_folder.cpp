#include "bitplan/pipeline/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "io/json_text.h"

namespace bitplan::pipeline {
namespace {

constexpr int kManifestVersion = 2;

std::string FileState(const std::filesystem::path& file) {
  return std::to_string(std::filesystem::file_size(file)) + ":" + FileSha256(file);
}

bool IsFile(const std::filesystem::path& file) {
  std::error_code missing;
  return std::filesystem::is_regular_file(file, missing);
}

// Where bitplan writes: the folder itself, its subfolders of one level, and those of plans/ and
// calibration-seeds/. Only names that bitplan
// gives to unfinished files go.
void RemoveUnfinished(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  RemoveLeftovers(folder);
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.is_directory(ignored) && !entry.is_symlink(ignored)) RemoveLeftovers(entry.path());
  }
  for (const char* name : {"plans", "calibration-seeds"}) {
    for (const auto& entry : fs::directory_iterator(folder / name, ignored)) {
      if (entry.is_directory(ignored) && !entry.is_symlink(ignored)) RemoveLeftovers(entry.path());
    }
  }
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

RunFolder::RunFolder(std::filesystem::path folder, Note note) : folder_(std::move(folder)), note_(std::move(note)) {
  EnsureWritableFolder(folder_);
  lock_ = LockFolder(folder_);
  try {
    RemoveUnfinished(folder_);
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
  if (found == stages_.end()) return std::nullopt;
  const auto untouched = [this](const auto& file) {
    return IsFile(File(file.first)) && FileState(File(file.first)) == file.second;
  };
  for (auto entry = found->second.rbegin(); entry != found->second.rend(); ++entry) {
    if (entry->record.input != input) continue;
    if (std::all_of(entry->files.begin(), entry->files.end(), untouched)) return entry->record;
  }
  return std::nullopt;
}

bool RunFolder::Wrote(const std::string& name) const {
  const auto found = written_.find(name);
  if (found == written_.end() || !IsFile(File(name))) return false;
  const auto state = FileState(File(name));
  return std::find(found->second.begin(), found->second.end(), state) != found->second.end();
}

void RunFolder::Adopt(const std::string& name) { written_[name] = {FileState(File(name))}; }

// The manifest knows the new content before it has the name, and the old one until then.
void RunFolder::Claim(const std::string& name, const std::filesystem::path& temporary) {
  const auto file = File(name);
  std::vector<std::string> states;
  if (std::filesystem::exists(std::filesystem::symlink_status(file))) {
    if (Wrote(name)) {
      states.push_back(FileState(file));
    } else {
      const auto kept = MoveAside(file, "kept");
      if (note_) note_(name + " in the output folder was not written by bitplan; it is now " + kept.string());
    }
  }
  states.push_back(FileState(temporary));
  written_[name] = std::move(states);
  Save();
}

void RunFolder::Write(const std::string& name, const std::function<void(const std::filesystem::path&)>& write) {
  const auto file = File(name);
  if (file.parent_path() != folder_) EnsureWritableFolder(file.parent_path());
  WriteFileAtomically(file, [&](const std::filesystem::path& temporary) {
    write(temporary);
    Claim(name, temporary);
  });
  auto& states = written_.at(name);
  states = {states.back()};
}

void RunFolder::Write(const std::string& name, std::string_view content) {
  if (IsFile(File(name)) && ReadFile(File(name), "file") == content) return Adopt(name);
  Write(name, [&](const std::filesystem::path& temporary) { WriteFileAtomically(temporary, content); });
}

void RunFolder::Link(const std::string& name, const std::string& source) {
  std::error_code error;
  if (std::filesystem::equivalent(File(name), File(source), error) && !error) return Adopt(name);
  Write(name, [&](const std::filesystem::path& temporary) {
    std::error_code failure;
    std::filesystem::create_hard_link(File(source), temporary, failure);
    if (failure) std::filesystem::copy_file(File(source), temporary);
  });
}

void RunFolder::WriteTogether(const std::function<void(const std::filesystem::path&)>& write) {
  namespace fs = std::filesystem;
  const auto staged = TemporaryName(File("report"));
  EnsureWritableFolder(staged);
  const auto clear = [&] {
    std::error_code ignored;
    fs::remove_all(staged, ignored);
  };
  try {
    write(staged);
    std::set<std::string> names, subfolders;
    for (const auto& entry : fs::recursive_directory_iterator(staged)) {
      const auto name = entry.path().lexically_relative(staged);
      if (entry.is_directory()) subfolders.insert(name.string());
      if (entry.is_regular_file()) names.insert(name.string());
    }
    for (const auto& name : names) {
      Write(name, [&](const fs::path& temporary) { fs::rename(staged / name, temporary); });
    }
    for (auto old = written_.begin(); old != written_.end();) {
      const bool stale =
          subfolders.count(fs::path(old->first).parent_path().string()) > 0 && names.count(old->first) == 0;
      std::error_code ignored;
      if (stale && Wrote(old->first)) fs::remove(File(old->first), ignored);
      old = stale ? written_.erase(old) : std::next(old);
    }
    Save();
  } catch (...) {
    clear();
    throw;
  }
  clear();
}

void RunFolder::Complete(const std::string& stage, const StageRecord& record, const std::vector<std::string>& files) {
  Entry entry{record, {}};
  for (const auto& name : files) {
    entry.files[name] = FileState(File(name));
    written_[name] = {entry.files[name]};
  }
  entry.record.files.clear();
  for (const auto& [name, state] : entry.files) entry.record.files.push_back(name);
  auto& entries = stages_[stage];
  const auto superseded = [&](const Entry& old) {
    if (old.record.input == record.input && old.record.files == entry.record.files) return true;
    return std::any_of(old.files.begin(), old.files.end(), [&](const auto& file) {
      const auto now = entry.files.find(file.first);
      return now != entry.files.end() && now->second != file.second;
    });
  };
  entries.erase(std::remove_if(entries.begin(), entries.end(), superseded), entries.end());
  entries.push_back(std::move(entry));
  Save();
}

// It is written in one piece, so a run that was killed leaves none that cannot be read. Version 1 had one record of
// every stage, and no list of files besides theirs.
void RunFolder::Load() {
  const auto file = File("manifest.json");
  if (!std::filesystem::exists(file)) return;
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorKind::kData, file.string() + " " + what + "; move or remove it to run every stage again");
  };
  const auto manifest = nlohmann::json::parse(ReadFile(file, "manifest"), nullptr, false);
  if (!manifest.is_object() || !manifest.contains("bitplan")) refuse("is damaged, or was not written by bitplan");
  const bool first = manifest.at("bitplan") == 1;
  if (!first && manifest.at("bitplan") != kManifestVersion) refuse("is of another version of bitplan");
  using Files = std::map<std::string, std::string>;
  try {
    for (const auto& [stage, records] : manifest.at("stages").items()) {
      for (const auto& item : first ? nlohmann::json::array({records}) : records) {
        Entry entry{{item.at("input"), item.at("content"), JsonText(item.at("facts")), item.at("seconds"), {}},
                    item.at("files").get<Files>()};
        for (const auto& [name, state] : entry.files) {
          entry.record.files.push_back(name);
          if (first) written_[name].push_back(state);
        }
        const auto there = [this](const auto& name) { return IsFile(File(name)); };
        const auto& names = entry.record.files;
        if (std::all_of(names.begin(), names.end(), there)) stages_[stage].push_back(std::move(entry));
      }
    }
    if (!first) written_ = manifest.at("written").get<std::map<std::string, std::vector<std::string>>>();
  } catch (const nlohmann::json::exception&) {
    refuse("is damaged");
  }
  for (auto entry = written_.begin(); entry != written_.end();) {
    entry = IsFile(File(entry->first)) ? std::next(entry) : written_.erase(entry);
  }
}

void RunFolder::Save() const {
  nlohmann::ordered_json stages = nlohmann::ordered_json::object();
  for (const auto& [stage, entries] : stages_) {
    auto& list = stages[stage] = nlohmann::ordered_json::array();
    for (const auto& entry : entries) {
      list.push_back({{"input", entry.record.input},
                      {"content", entry.record.content},
                      {"facts", nlohmann::ordered_json::parse(entry.record.facts)},
                      {"seconds", entry.record.seconds},
                      {"files", entry.files}});
    }
  }
  const nlohmann::ordered_json manifest = {{"bitplan", kManifestVersion}, {"stages", stages}, {"written", written_}};
  WriteFileAtomically(File("manifest.json"), JsonText(manifest, 2) + "\n");
}

}  // namespace bitplan::pipeline
