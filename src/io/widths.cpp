#include "bitplan/io/widths.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>
#include <set>
#include <sstream>

#include "bitplan/core/error.h"
#include "bitplan/core/one_line.h"
#include "io/yaml_source.h"

namespace bitplan {
namespace {

const std::vector<std::string> kNameKeys = {"name", "layer", "module"};
const std::vector<std::string> kBitsKeys = {"bits", "num_bits", "bitwidth", "width"};
constexpr char kWidthsMeant[] = "bits are 0 to 8, or 16 or 32 for a layer that is left alone";

bool IsOneOf(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool IsWidth(std::int64_t bits) { return (bits >= 0 && bits <= 8) || bits == 16 || bits == 32; }

// A whole number of at most two digits, also written as 4.0.
std::optional<int> WidthIn(const std::string& text) {
  const auto digits = std::min(text.find('.'), text.size());
  const bool whole = digits >= 1 && digits <= 2 &&
                     std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(digits),
                                 [](unsigned char c) { return std::isdigit(c) != 0; }) &&
                     text.find_first_not_of('0', std::min(digits + 1, text.size())) == std::string::npos;
  if (!whole || !IsWidth(std::stoi(text))) return std::nullopt;
  return std::stoi(text);
}

// ---- CSV

std::string Trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t\r"), end = text.find_last_not_of(" \t\r");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

// "a ""b"" c" is one field: a "b" c.
std::vector<std::string> FieldsOf(const std::string& line, char separator) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += line[++i];
    } else if (line[i] == '"') {
      quoted = !quoted;
    } else if (line[i] == separator && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += line[i];
    }
  }
  for (std::string& field : fields) field = Trimmed(field);
  return fields;
}

char SeparatorOf(const std::string& line) {
  for (const char separator : {',', ';', '\t'}) {
    if (line.find(separator) != std::string::npos) return separator;
  }
  return ',';
}

class WidthTable {
 public:
  explicit WidthTable(std::string file) : file_(std::move(file)) {}

  std::vector<NamedWidth> Read(const std::string& text) {
    std::istringstream lines(text);
    std::string line;
    for (number_ = 1; std::getline(lines, line); ++number_) {
      const std::string row = Trimmed(line);
      if (row.empty() || row.front() == '#') continue;
      const auto fields = FieldsOf(line, SeparatorOf(row));
      if (!seen_row_ && !NamesColumns(fields)) AddRow(fields);
      if (seen_row_) AddRow(fields);
      seen_row_ = true;
    }
    return std::move(widths_);
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    throw Error(ErrorKind::kData, fmt::format("{}:{}: {}", file_, number_, OneLine(what)));
  }

  // Whether the row is a heading; then it says which columns count.
  bool NamesColumns(const std::vector<std::string>& fields) {
    std::optional<std::size_t> name, bits;
    for (std::size_t i = 0; i < fields.size(); ++i) {
      if (WidthIn(fields[i])) return false;
      if (!name && IsOneOf(kNameKeys, fields[i])) name = i;
      if (!bits && IsOneOf(kBitsKeys, fields[i])) bits = i;
    }
    if (!name || !bits) return false;
    name_ = *name;
    bits_ = *bits;
    return true;
  }

  void AddRow(const std::vector<std::string>& fields) {
    if (fields.size() <= std::max(name_, bits_)) Refuse("a line is the name of a layer and its bits, as in conv1,8");
    const auto width = WidthIn(fields[bits_]);
    if (!width) Refuse(fmt::format("'{}' is no width; {}", fields[bits_].substr(0, 40), kWidthsMeant));
    if (fields[name_].empty()) Refuse("a layer without a name");
    if (!names_.insert(fields[name_]).second) Refuse("layer '" + fields[name_] + "' comes twice");
    widths_.push_back({fields[name_], *width});
  }

  std::string file_;
  std::size_t number_ = 1, name_ = 0, bits_ = 1;
  bool seen_row_ = false;
  std::set<std::string> names_;
  std::vector<NamedWidth> widths_;
};

// ---- YAML

class WidthDocument {
 public:
  explicit WidthDocument(const std::string& file) : source_(file, ErrorKind::kData, true) {}

  std::vector<NamedWidth> Read(const std::string& text) {
    YAML::Node root = source_.Parse(text);
    if (root.IsMap() && root["layers"].IsDefined()) root = root["layers"];
    if (root.IsMap()) {
      for (const auto& entry : root) Add(entry.first, entry.first, entry.second);
    } else if (root.IsSequence()) {
      for (const auto& entry : root) Add(entry, Find(entry, kNameKeys), entry);
    } else {
      source_.Fail("no widths: it is {conv1: 8, ...}, or a list of {name: conv1, bits: 8}");
    }
    return std::move(widths_);
  }

 private:
  YAML::Node Find(const YAML::Node& map, const std::vector<std::string>& keys) const {
    if (map.IsMap()) {
      for (const std::string& key : keys) {
        if (map[key].IsDefined()) return map[key];
      }
    }
    source_.Fail(map, fmt::format("a layer needs one of the keys {}", fmt::join(keys, ", ")));
  }

  int BitsIn(const YAML::Node& node) const {
    const YAML::Node value = node.IsScalar() ? node : Find(node, kBitsKeys);
    const auto width = value.IsScalar() ? WidthIn(value.Scalar()) : std::nullopt;
    if (!width) source_.Fail(value, kWidthsMeant);
    return *width;
  }

  void Add(const YAML::Node& at, const YAML::Node& name_node, const YAML::Node& bits_node) {
    const std::string name = source_.Text(name_node, "name");
    const int bits = BitsIn(bits_node);
    if (!names_.insert(name).second) source_.Fail(at, "layer '" + name + "' comes twice");
    widths_.push_back({name, bits});
  }

  YamlSource source_;
  std::set<std::string> names_;
  std::vector<NamedWidth> widths_;
};

}  // namespace

std::vector<NamedWidth> ParseWidths(const std::string& text, const std::string& file_name) {
  const std::string ending = std::filesystem::path(file_name).extension().string();
  const bool yaml = ending == ".json" || ending == ".yaml" || ending == ".yml";
  auto widths = yaml ? WidthDocument(file_name).Read(text) : WidthTable(file_name).Read(text);
  if (widths.empty()) throw Error(ErrorKind::kData, file_name + ": no layers");
  return widths;
}

}  // namespace bitplan
