// Reading YAML with errors that say where. Recipes and plans share it: the same words for the same mistakes, with the
// error kind of the document (usage for a recipe, data for a plan). yaml-cpp is included by io's .cpp files only.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "bitplan/core/error.h"

namespace bitplan {

// Allowed values of a number.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_is_open = false;

  [[nodiscard]] bool Contains(double value) const;
  [[nodiscard]] bool bounded() const;
  [[nodiscard]] std::string Describe() const;  // "> 0", ">= 1", "in 0..8", "> 0 and <= 32"
};

inline constexpr Range kPositive{.low = 0, .low_is_open = true};
inline constexpr Range kNotNegative{.low = 0};
inline constexpr Range kShare{.low = 0, .high = 1};

class YamlSource {
 public:
  // `name`: file name, or the text of an override, whose lines are not counted.
  YamlSource(std::string name, ErrorKind kind, bool has_lines);

  // The root of a text that holds exactly one document.
  [[nodiscard]] YAML::Node Parse(const std::string& text) const;

  // "file:line: what".
  [[noreturn]] void Fail(const YAML::Node& at, const std::string& what) const;
  // "file: what".
  [[noreturn]] void Fail(const std::string& what) const;

  // Visits the entries of a map in file order. Unknown and repeated keys are errors; `path` names the map ("train",
  // "" for the root).
  using Visit = std::function<void(const std::string& key, const YAML::Node& value)>;
  void ForEachKey(const YAML::Node& map, const std::string& path, const std::vector<std::string>& known,
                  const Visit& visit) const;

  // Typed values. `path` names the value in messages.
  [[nodiscard]] std::string Text(const YAML::Node& node, const std::string& path) const;
  [[nodiscard]] bool Flag(const YAML::Node& node, const std::string& path) const;
  [[nodiscard]] double Number(const YAML::Node& node, const std::string& path, const Range& range) const;
  [[nodiscard]] std::int64_t Integer(const YAML::Node& node, const std::string& path, const Range& range) const;
  [[nodiscard]] std::uint64_t Seed(const YAML::Node& node, const std::string& path) const;
  // One of a closed set.
  [[nodiscard]] std::string Choice(const YAML::Node& node, const std::string& path,
                                   const std::vector<std::string>& choices) const;
  [[nodiscard]] std::vector<YAML::Node> List(const YAML::Node& node, const std::string& path) const;

 private:
  [[nodiscard]] std::string Place(const YAML::Mark& mark) const;  // ":12"; empty where lines are not counted
  [[nodiscard]] std::string Scalar(const YAML::Node& node, const std::string& path, const std::string& expected) const;
  [[noreturn]] void FailValue(const YAML::Node& node, const std::string& path, const std::string& expected) const;

  std::string name_;
  ErrorKind kind_;
  bool has_lines_;
};

// The whole text as one finite number.
[[nodiscard]] bool IsNumber(const std::string& text);

}  // namespace bitplan
