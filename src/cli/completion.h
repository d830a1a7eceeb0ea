// Completion of command lines: a script for the shell, made from the program's own lists.
#pragma once

#include <string>
#include <vector>

namespace bitplan::cli {

// What may stand where a value is expected: some words, and files or folders or neither.
struct CompletionValue {
  enum class Paths { kNone, kFiles, kFolders };
  std::vector<std::string> words{};
  Paths paths = Paths::kNone;
};

struct CompletionOption {
  std::string name;  // "--plan"
  std::string help;
  bool takes_value = false;
  CompletionValue value{};
};

struct CompletionCommand {
  std::string name;
  std::string help;
  std::vector<CompletionOption> options;
  std::vector<CompletionValue> arguments;  // in their order
};

// Values of `--set KEY=VALUE`.
struct CompletionKey {
  std::string path;
  std::vector<std::string> words;
};

[[nodiscard]] std::string BashCompletion(const std::vector<CompletionCommand>& commands,
                                         const std::vector<CompletionKey>& keys);
[[nodiscard]] std::string ZshCompletion(const std::vector<CompletionCommand>& commands,
                                        const std::vector<CompletionKey>& keys);

}  // namespace bitplan::cli
