#include "io/yaml_source.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <sstream>
#include <utility>

#include "bitplan/core/one_line.h"
#include "bitplan/core/suggest.h"

namespace bitplan {
namespace {

template <typename T>
std::optional<T> ParseWhole(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> ParseFinite(const std::string& text) {
  const auto value = ParseWhole<double>(text);
  return value && std::isfinite(*value) ? value : std::nullopt;
}

// Where the documents of a text begin.
class DocumentStarts : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override { marks.push_back(mark); }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

  std::vector<YAML::Mark> marks;
};

std::string Bound(double value) { return fmt::format("{}", value); }

}  // namespace

bool Range::Contains(double value) const { return (low_is_open ? value > low : value >= low) && value <= high; }

bool Range::bounded() const { return std::isfinite(low) || std::isfinite(high); }

std::string Range::Describe() const {
  if (std::isfinite(low) && std::isfinite(high) && !low_is_open) return "in " + Bound(low) + ".." + Bound(high);
  std::string text;
  if (std::isfinite(low)) text = (low_is_open ? "> " : ">= ") + Bound(low);
  if (std::isfinite(high)) text += (text.empty() ? "<= " : " and <= ") + Bound(high);
  return text;
}

YamlSource::YamlSource(std::string name, ErrorKind kind, bool has_lines)
    : name_(OneLine(std::move(name))), kind_(kind), has_lines_(has_lines) {}

YAML::Node YamlSource::Parse(const std::string& text) const {
  try {
    // Three at most: yaml-cpp finds empty documents for ever before a comma or bracket that stands where none can be.
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    DocumentStarts starts;
    while (starts.marks.size() < 3 && parser.HandleNextDocument(starts)) {
    }
    if (starts.marks.size() > 1 && starts.marks.back().pos == starts.marks.rbegin()[1].pos) {
      throw YAML::ParserException(starts.marks.back(), "a comma or a closing bracket stands where none can be");
    }
    YAML::Node root = YAML::Load(text);
    if (starts.marks.size() > 1) {
      throw Error(kind_, fmt::format("{}{}: a second YAML document begins; the file must hold one", name_,
                                     Place(starts.marks[1])));
    }
    if (starts.marks.empty() || root.IsNull()) Fail("is empty");
    return root;
  } catch (const YAML::Exception& error) {
    throw Error(kind_, fmt::format("{}{}: YAML syntax: {}", name_, Place(error.mark), OneLine(error.msg)));
  }
}

std::string YamlSource::Place(const YAML::Mark& mark) const {
  return has_lines_ && !mark.is_null() ? fmt::format(":{}", mark.line + 1) : "";
}

void YamlSource::Fail(const YAML::Node& at, const std::string& what) const {
  throw Error(kind_, fmt::format("{}{}: {}", name_, Place(at.Mark()), OneLine(what)));
}

void YamlSource::Fail(const std::string& what) const { throw Error(kind_, name_ + ": " + OneLine(what)); }

void YamlSource::ForEachKey(const YAML::Node& map, const std::string& path, const std::vector<std::string>& known,
                            const Visit& visit) const {
  const std::string inside = path.empty() ? "" : " in " + path;
  if (!map.IsMap()) {
    Fail(map, fmt::format("{} must be a map of keys, such as {}", path.empty() ? "the document" : path,
                          path.empty() ? "'bitplan: 1'" : "'{" + known.front() + ": ...}'"));
  }
  std::vector<std::string> seen;
  for (const auto& entry : map) {
    if (!entry.first.IsScalar()) Fail(entry.first, "a key" + inside + " is not a plain word");
    const std::string& key = entry.first.Scalar();
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      const std::string nearest = NearestName(key, known);
      Fail(entry.first, fmt::format("unknown key '{}'{}; {}", key, inside,
                                    nearest.empty() ? fmt::format("known keys: {}", fmt::join(known, ", "))
                                                    : "nearest known key: " + nearest));
    }
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) {
      Fail(entry.first, fmt::format("key '{}'{} is given twice", key, inside));
    }
    seen.push_back(key);
    visit(key, entry.second);
  }
}

std::string YamlSource::Text(const YAML::Node& node, const std::string& path) const {
  return Scalar(node, path, "text");
}

bool YamlSource::Flag(const YAML::Node& node, const std::string& path) const {
  const std::string text = Scalar(node, path, "true or false");
  if (text != "true" && text != "false") FailValue(node, path, "true or false");
  return text == "true";
}

double YamlSource::Number(const YAML::Node& node, const std::string& path, const Range& range) const {
  const std::string expected = range.bounded() ? "a number " + range.Describe() : "a finite number";
  const auto value = ParseFinite(Scalar(node, path, expected));
  if (!value) FailValue(node, path, expected);
  if (!range.Contains(*value)) FailValue(node, path, range.Describe());
  return *value;
}

std::int64_t YamlSource::Integer(const YAML::Node& node, const std::string& path, const Range& range) const {
  const std::string expected = range.bounded() ? fmt::format("a whole number {}", range.Describe()) : "a whole number";
  const auto value = ParseWhole<std::int64_t>(Scalar(node, path, expected));
  if (!value) FailValue(node, path, expected);
  if (!range.Contains(static_cast<double>(*value))) FailValue(node, path, range.Describe());
  return *value;
}

std::uint64_t YamlSource::Seed(const YAML::Node& node, const std::string& path) const {
  const std::string expected = "a whole number >= 0 and < 2^64";
  const auto value = ParseWhole<std::uint64_t>(Scalar(node, path, expected));
  if (!value) FailValue(node, path, expected);
  return *value;
}

std::string YamlSource::Choice(const YAML::Node& node, const std::string& path,
                               const std::vector<std::string>& choices) const {
  const std::string expected = fmt::format("one of {}", fmt::join(choices, ", "));
  const std::string text = Scalar(node, path, expected);
  if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
    const std::string nearest = NearestName(text, choices);
    FailValue(node, path, nearest.empty() ? expected : expected + "; nearest: " + nearest);
  }
  return text;
}

std::vector<YAML::Node> YamlSource::List(const YAML::Node& node, const std::string& path) const {
  if (!node.IsSequence()) {
    Fail(node, path +
                   (node.IsMap()    ? " is a map"
                    : node.IsNull() ? " has no value"
                                    : " is '" + node.Scalar() + "'") +
                   "; it must be a list, such as [a, b]");
  }
  return {node.begin(), node.end()};
}

std::string YamlSource::Scalar(const YAML::Node& node, const std::string& path, const std::string& expected) const {
  if (node.IsScalar()) return node.Scalar();
  const char* found = node.IsMap() ? "is a map" : node.IsSequence() ? "is a list" : "has no value";
  Fail(node, fmt::format("{} {}; it must be {}", path, found, expected));
}

void YamlSource::FailValue(const YAML::Node& node, const std::string& path, const std::string& expected) const {
  const std::string& value = node.Scalar();
  Fail(node, fmt::format("{} is {}; it must be {}", path, IsNumber(value) ? value : "'" + value + "'", expected));
}

bool IsNumber(const std::string& text) { return ParseFinite(text).has_value(); }

}  // namespace bitplan
