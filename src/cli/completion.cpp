#include "cli/completion.h"

#include <fmt/format.h>

namespace bitplan::cli {
namespace {

using Paths = CompletionValue::Paths;

// 'text' for the shell.
std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string Joined(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, " ")); }

const char* PathsWord(Paths paths) {
  switch (paths) {
    case Paths::kNone:
      return "none";
    case Paths::kFiles:
      return "files";
    case Paths::kFolders:
      return "folders";
  }
  return "none";
}

std::vector<std::string> NamesOf(const std::vector<CompletionCommand>& commands) {
  std::vector<std::string> names;
  for (const auto& command : commands) names.push_back(command.name);
  return names;
}

// In zsh's `_arguments` and `_describe` colons and brackets end a description.
std::string ZshText(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == ':' || c == '[' || c == ']') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

std::string ZshAction(const CompletionValue& value) {
  const std::string words = value.words.empty() ? "" : "(" + Joined(value.words) + ")";
  switch (value.paths) {
    case Paths::kNone:
      return words.empty() ? " " : words;
    case Paths::kFiles:
      return words.empty() ? "_files" : "_bitplan_words_or_files " + Joined(value.words);
    case Paths::kFolders:
      return "_files -/";
  }
  return " ";
}

}  // namespace

std::string BashCompletion(const std::vector<CompletionCommand>& commands, const std::vector<CompletionKey>& keys) {
  std::string values, positions, options, keyed, paths;
  for (const auto& command : commands) {
    std::vector<std::string> names;
    for (const auto& option : command.options) {
      names.push_back(option.name);
      if (!option.takes_value || option.name == "--set") continue;
      values += fmt::format("    {}) kind={}; words={} ;;\n", Quoted(command.name + " " + option.name),
                            PathsWord(option.value.paths), Quoted(Joined(option.value.words)));
    }
    options += fmt::format("    {}) words={} ;;\n", command.name, Quoted(Joined(names)));
    for (std::size_t i = 0; i < command.arguments.size(); ++i) {
      positions += fmt::format("    {}) kind={}; words={} ;;\n", Quoted(command.name + " " + std::to_string(i + 1)),
                               PathsWord(command.arguments[i].paths), Quoted(Joined(command.arguments[i].words)));
    }
  }
  for (const auto& key : keys) {
    paths += (paths.empty() ? "" : " ") + key.path + "=";
    if (!key.words.empty()) keyed += fmt::format("    {}) words={} ;;\n", key.path, Quoted(Joined(key.words)));
  }
  return "# Completion of bitplan for bash; written by 'bitplan help completion bash'.\n"
         "_bitplan_value() {  # \"COMMAND OPTION\" or \"COMMAND NUMBER\": sets kind and words, false where no value "
         "stands\n"
         "  kind=none words=\n"
         "  case $1 in\n" +
         values + positions +
         "    *) return 1 ;;\n"
         "  esac\n"
         "}\n"
         "_bitplan() {\n"
         "  local line=('' '' \"${COMP_WORDS[@]:1:COMP_CWORD-1}\") current=${COMP_WORDS[COMP_CWORD]}\n"
         "  local command= previous= kind=none words= count=0 word skip=\n"
         "  COMPREPLY=()\n"
         "  for word in \"${line[@]}\"; do  # the sub-command, and how many arguments stand before the cursor\n"
         "    if [[ -z $command && $word != -* ]]; then command=$word\n"
         "    elif [[ $word == = ]]; then skip=1; continue  # bash makes three words of KEY=VALUE\n"
         "    elif [[ -n $skip || $word == -* ]]; then skip=\n"
         "    elif [[ $previous == --set ]] || { [[ $previous == -* ]] && _bitplan_value \"$command $previous\"; }; "
         "then :\n"
         "    else count=$((count + 1)); fi\n"
         "    previous=$word\n"
         "  done\n"
         "  local last=${line[-1]} before=${line[-2]}\n"
         "  kind=none words=\n"
         "  if [[ -z $command ]]; then\n"
         "    words=" +
         Quoted(Joined(NamesOf(commands)) + " --help --version") +
         "\n"
         "  elif [[ $current == = || $last == = ]]; then  # after KEY=\n"
         "    local key=$before\n"
         "    if [[ $current == = ]]; then key=$last current=; fi\n"
         "    case $key in\n" +
         keyed +
         "    esac\n"
         "  elif [[ $last == --set ]]; then\n"
         "    words=" +
         Quoted(paths) +
         "\n"
         "    compopt -o nospace 2>/dev/null\n"
         "  elif [[ $current == -* ]]; then\n"
         "    case $command in\n" +
         options +
         "    esac\n"
         "  elif [[ $last == -* ]] && _bitplan_value \"$command $last\"; then :\n"
         "  else _bitplan_value \"$command $((count + 1))\"; fi\n"
         "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
         "  local found=()\n"
         "  case $kind in\n"
         "    files) mapfile -t found < <(compgen -f -- \"$current\") ;;\n"
         "    folders) mapfile -t found < <(compgen -d -- \"$current\") ;;\n"
         "  esac\n"
         "  if [[ ${#found[@]} -gt 0 ]]; then compopt -o filenames 2>/dev/null; COMPREPLY+=(\"${found[@]}\"); fi\n"
         "  return 0\n"
         "}\n"
         "complete -F _bitplan bitplan\n";
}

std::string ZshCompletion(const std::vector<CompletionCommand>& commands, const std::vector<CompletionKey>& keys) {
  std::string text =
      "#compdef bitplan\n"
      "# Completion of bitplan for zsh; written by 'bitplan help completion zsh'.\n"
      "_bitplan_words_or_files() { _alternative \"words:word:($*)\" 'files:file:_files' }\n"
      "_bitplan_set() {\n"
      "  if compset -P 1 '*='; then\n"
      "    case ${IPREFIX%=} in\n";
  std::string paths;
  for (const auto& key : keys) {
    paths += (paths.empty() ? "" : " ") + key.path;
    if (!key.words.empty()) text += fmt::format("      {}) compadd -- {} ;;\n", key.path, Joined(key.words));
  }
  text +=
      "    esac\n"
      "  else\n"
      "    compadd -S '=' -- " +
      paths +
      "\n"
      "  fi\n"
      "}\n"
      "_bitplan() {\n"
      "  local context state state_descr line\n"
      "  typeset -A opt_args\n"
      "  local -a commands=(\n";
  for (const auto& command : commands)
    text += "    " + Quoted(ZshText(command.name) + ":" + ZshText(command.help)) + "\n";
  text +=
      "  )\n"
      "  _arguments -C '--help[help]' '--version[version]' '1: :->command' '*:: :->arguments'\n"
      "  if [[ $state == command ]]; then _describe -t commands 'sub-command' commands; return; fi\n"
      "  case $words[1] in\n";
  for (const auto& command : commands) {
    text += fmt::format("    {}) _arguments", command.name);
    for (const auto& option : command.options) {
      const std::string action = option.name == "--set" ? "_bitplan_set" : ZshAction(option.value);
      text += " \\\n      " + Quoted((option.name == "--set" ? "*" : "") + option.name + "[" + ZshText(option.help) +
                                     "]" + (option.takes_value ? ":value:" + action : ""));
    }
    for (std::size_t i = 0; i < command.arguments.size(); ++i)
      text += " \\\n      " + Quoted(fmt::format("{}:argument:{}", i + 1, ZshAction(command.arguments[i])));
    text += " ;;\n";
  }
  return text +
         "  esac\n"
         "}\n"
         "if [[ $funcstack[1] == _bitplan ]]; then _bitplan \"$@\"; else compdef _bitplan bitplan; fi\n";
}

}  // namespace bitplan::cli
