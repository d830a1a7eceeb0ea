#include "bitplan/io/latency.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

#include "bitplan/core/error.h"
#include "bitplan/core/one_line.h"
#include "bitplan/core/suggest.h"
#include "bitplan/io/files.h"

namespace bitplan {
namespace {

const std::vector<std::string>& LatencyColumns() {
  static const std::vector<std::string> columns = {"layer", "kind", "weight_bits", "activation_bits", "microseconds"};
  return columns;
}

std::vector<std::string> LatencyFields(const std::string& line) {
  std::vector<std::string> fields;
  std::size_t begin = 0;
  for (;;) {
    const auto end = line.find(',', begin);
    std::string field = line.substr(begin, end == std::string::npos ? end : end - begin);
    const auto first = field.find_first_not_of(" \t"), last = field.find_last_not_of(" \t");
    fields.push_back(first == std::string::npos ? std::string() : field.substr(first, last - first + 1));
    if (end == std::string::npos) return fields;
    begin = end + 1;
  }
}

// One line of the file, and where it stands.
struct LatencyLine {
  std::string file;
  int number = 0;
  std::vector<std::string> columns{}, fields{};

  [[noreturn]] void Fail(const std::string& what) const {
    throw Error(ErrorKind::kData, fmt::format("{}:{}: {}", file, number, OneLine(what)));
  }

  [[nodiscard]] const std::string& Field(const std::string& column) const {
    const auto found = std::find(columns.begin(), columns.end(), column);
    return fields.at(static_cast<std::size_t>(found - columns.begin()));
  }

  // A width, none: float.
  [[nodiscard]] int Bits(const std::string& column) const {
    const std::string& text = Field(column);
    if (text.empty() || text == "float") return 32;
    int bits = -1;
    const auto end = std::from_chars(text.data(), text.data() + text.size(), bits);
    const bool known = (bits >= 0 && bits <= 8) || bits == 16 || bits == 32;
    if (end.ec != std::errc() || end.ptr != text.data() + text.size() || !known) {
      Fail(fmt::format("{} is '{}'; it must be in 0..8, or 16, or 32 or nothing for float", column, text));
    }
    return bits;
  }

  [[nodiscard]] std::int64_t Nanoseconds() const {
    constexpr double kMost = 1e9;  // microseconds
    const std::string& text = Field("microseconds");
    double value = -1.0;
    const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
    if (end.ec != std::errc() || end.ptr != text.data() + text.size() || !(value >= 0.0 && value <= kMost)) {
      Fail(fmt::format("microseconds is '{}'; it must be a number in 0..1e9", text));
    }
    return std::llround(1e3 * value);
  }
};

void CheckColumns(const LatencyLine& line) {
  for (const std::string& column : line.fields) {
    const auto& known = LatencyColumns();
    if (std::find(known.begin(), known.end(), column) == known.end()) {
      line.Fail(UnknownNameMessage("column", column, known));
    }
    if (std::count(line.fields.begin(), line.fields.end(), column) > 1) {
      line.Fail("column '" + column + "' is given twice");
    }
  }
  for (const std::string& column : LatencyColumns()) {
    if (std::find(line.fields.begin(), line.fields.end(), column) == line.fields.end()) {
      line.Fail(fmt::format("has no column '{}'; a table of latencies has the columns {}", column,
                            fmt::join(LatencyColumns(), ",")));
    }
  }
}

}  // namespace

std::vector<LatencyRow> ParseLatencyTable(const std::string& text, const std::string& file_name) {
  std::vector<LatencyRow> rows;
  LatencyLine line{.file = file_name};
  std::istringstream in(text);
  for (std::string content; std::getline(in, content);) {
    ++line.number;
    if (!content.empty() && content.back() == '\r') content.pop_back();
    if (content.empty() || content.front() == '#') continue;
    line.fields = LatencyFields(content);
    if (line.columns.empty()) {
      CheckColumns(line);
      line.columns = line.fields;
      continue;
    }
    if (line.fields.size() != line.columns.size()) {
      line.Fail(fmt::format("has {} fields, the first line {}", line.fields.size(), line.columns.size()));
    }
    rows.push_back({.layer = line.Field("layer"),
                    .kind = line.Field("kind"),
                    .weight_bits = line.Bits("weight_bits"),
                    .activation_bits = line.Bits("activation_bits"),
                    .nanoseconds = line.Nanoseconds()});
  }
  if (rows.empty()) throw Error(ErrorKind::kData, file_name + ": is a table of latencies without a row");
  return rows;
}

std::vector<LatencyRow> LoadLatencyTable(const std::filesystem::path& file) {
  return ParseLatencyTable(ReadFile(file, "table of latencies"), file.string());
}

}  // namespace bitplan
