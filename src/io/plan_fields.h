// The maps of a plan file, key by key.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "io/plan_keys.h"
#include "io/yaml_source.h"

namespace bitplan {

inline constexpr Range kAny{};
inline constexpr Range kAtLeastOne{.low = 1};

// A map whose keys are those of PlanKeys: required ones are there, optional ones may be missing.
class PlanFields {
 public:
  PlanFields(const YamlSource& source, const YAML::Node& map, std::string path)
      : source_(source), path_(std::move(path)) {
    const auto required = PlanKeysIn(path_, /*required=*/true), optional = PlanKeysIn(path_, /*required=*/false);
    std::vector<std::string> known = required;
    known.insert(known.end(), optional.begin(), optional.end());
    source.ForEachKey(map, path_, known,
                      [this](const std::string& key, const YAML::Node& value) { values_.emplace_back(key, value); });
    for (const std::string& key : required) {
      if (!Has(key)) source.Fail(map, "missing key '" + key + "'" + (path_.empty() ? "" : " in " + path_));
    }
  }

  [[nodiscard]] bool Has(const std::string& key) const { return Find(key) != values_.end(); }
  [[nodiscard]] const YAML::Node& At(const std::string& key) const { return Find(key)->second; }
  [[nodiscard]] std::vector<std::string> Keys() const {
    std::vector<std::string> keys;
    for (const auto& value : values_) keys.push_back(value.first);
    return keys;
  }
  [[nodiscard]] std::string Path(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }

  [[nodiscard]] std::string Text(const std::string& key) const { return source_.Text(At(key), Path(key)); }
  [[nodiscard]] double Number(const std::string& key, const Range& range) const {
    return source_.Number(At(key), Path(key), range);
  }
  [[nodiscard]] std::int64_t Integer(const std::string& key, const Range& range) const {
    return source_.Integer(At(key), Path(key), range);
  }
  [[nodiscard]] std::vector<YAML::Node> List(const std::string& key) const { return source_.List(At(key), Path(key)); }

 private:
  using Values = std::vector<std::pair<std::string, YAML::Node>>;
  [[nodiscard]] Values::const_iterator Find(const std::string& key) const {
    return std::find_if(values_.begin(), values_.end(), [&](const auto& value) { return value.first == key; });
  }

  const YamlSource& source_;
  std::string path_;
  Values values_;
};

}  // namespace bitplan
