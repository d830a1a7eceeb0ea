// The output folder of a run, and its memory: manifest.json.
//
// For every stage that ended the manifest keeps the hash of what the stage read, the hash of what it produced, and the
// size and SHA-256 of every file it wrote. A stage whose input hash is a recorded one and whose files are untouched is
// not run again; a stage may have several records, of several budgets say, as long as none overwrites the files of
// another. The manifest is renamed into place after each stage, so a process killed at any moment leaves a folder from
// which the same command continues.
//
// It also keeps the size and SHA-256 of every file that bitplan wrote here, noted before the file gets its name. A file
// that lies under such a name with other content is somebody's own: Write moves it aside (NAME.kept.EXT) and says so.
// Nothing else in the folder is touched.
//
// One process at a time: the folder is locked (flock on .lock) for the lifetime of the object; the lock ends with the
// process, however it ends.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bitplan::pipeline {

struct StageRecord {
  std::string input;                 // hash of everything that the stage read
  std::string content;               // hash of what it produced; what the stages below it hash in their turn
  std::string facts;                 // JSON: what the stage wants to know again when it is not run ("{}": nothing)
  double seconds = 0.0;              // how long it took
  std::vector<std::string> files{};  // names within the folder of what it wrote, in alphabetical order
};

class RunFolder {
 public:
  using Note = std::function<void(const std::string& line)>;

  // Creates the folder when it is missing, locks it, removes what a killed run left half-written, reads the manifest.
  // `note` is told of files that are moved aside. Error(kIo) when the folder cannot be written into or another process
  // holds it, Error(kData) when the manifest is damaged.
  explicit RunFolder(std::filesystem::path folder, Note note = {});
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return folder_; }
  [[nodiscard]] std::filesystem::path File(const std::string& name) const { return folder_ / name; }

  // The record of a stage that ended with this input and whose files are what they were; nothing otherwise.
  [[nodiscard]] std::optional<StageRecord> Find(const std::string& stage, const std::string& input) const;

  // Whether the file is there as bitplan left it.
  [[nodiscard]] bool Wrote(const std::string& name) const;
  // What lies there counts as written by bitplan from now on.
  void Adopt(const std::string& name);

  // Writes a file (its name within the folder, subfolders are made), whole or not at all. `write` gets a temporary
  // path.
  void Write(const std::string& name, const std::function<void(const std::filesystem::path& temporary)>& write);
  // The same; a file that holds these bytes already is left alone.
  void Write(const std::string& name, std::string_view content);
  // Gives what lies under `source` the name `name` as well: a hard link, or a copy where there is none to have.
  void Link(const std::string& name, const std::string& source);
  // `write` fills a folder of its own; then every file in it takes its place here, and files that an earlier call left
  // in the same subfolders go.
  void WriteTogether(const std::function<void(const std::filesystem::path& folder)>& write);

  // Records a stage and its files (names within the folder, all written) and saves the manifest. Takes the place of the
  // records with the same input and files, and of those whose files it has overwritten.
  void Complete(const std::string& stage, const StageRecord& record, const std::vector<std::string>& files);

 private:
  struct Entry {
    StageRecord record;
    std::map<std::string, std::string> files;  // name -> "bytes:sha256"
  };
  void Load();
  void Save() const;
  void Claim(const std::string& name, const std::filesystem::path& temporary);

  std::filesystem::path folder_;
  Note note_;
  int lock_ = -1;
  std::map<std::string, std::vector<Entry>> stages_;         // newest last
  std::map<std::string, std::vector<std::string>> written_;  // name -> states; two while a file is being replaced
};

// SHA-256 of a file's bytes. Error(kNotFound) when it is missing.
[[nodiscard]] std::string FileSha256(const std::filesystem::path& file);

}  // namespace bitplan::pipeline
