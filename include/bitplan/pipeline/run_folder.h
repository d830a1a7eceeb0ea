// The output folder of a run, and its memory: manifest.json.
//
// For every stage that ended the manifest keeps the hash of what the stage read, the hash of what it produced, and the
// size and SHA-256 of every file it wrote. A stage whose input hash is the recorded one and whose files are untouched
// is not run again. The manifest is renamed into place after each stage, so a process killed at any moment leaves a
// folder from which the same command continues.
//
// One process at a time: the folder is locked (flock on .lock) for the lifetime of the object; the lock ends with the
// process, however it ends.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace bitplan::pipeline {

struct StageRecord {
  std::string input;     // hash of everything that the stage read
  std::string content;   // hash of what it produced; what the stages below it hash in their turn
  std::string facts;     // JSON: what the stage wants to know again when it is not run ("{}": nothing)
  double seconds = 0.0;  // how long it took
};

class RunFolder {
 public:
  // Creates the folder when it is missing, locks it, removes what a killed run left half-written, reads the manifest.
  // Error(kIo) when it cannot be written into or another process holds it, Error(kData) when the manifest is damaged.
  explicit RunFolder(std::filesystem::path folder);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return folder_; }
  [[nodiscard]] std::filesystem::path File(const std::string& name) const { return folder_ / name; }

  // The record of a stage that ended with this input and whose files are what they were; nothing otherwise.
  [[nodiscard]] std::optional<StageRecord> Find(const std::string& stage, const std::string& input) const;

  // Whether the file is as that stage left it.
  [[nodiscard]] bool Wrote(const std::string& stage, const std::string& name) const;

  // Records a stage and its files (names within the folder, all written) and saves the manifest.
  void Complete(const std::string& stage, const StageRecord& record, const std::vector<std::string>& files);

 private:
  struct Entry {
    StageRecord record;
    std::map<std::string, std::string> files;  // name -> "bytes:sha256"
  };
  void Load();
  void Save() const;

  std::filesystem::path folder_;
  int lock_ = -1;
  std::map<std::string, Entry> stages_;
};

// SHA-256 of a file's bytes. Error(kNotFound) when it is missing.
[[nodiscard]] std::string FileSha256(const std::filesystem::path& file);

}  // namespace bitplan::pipeline
