#include "cli/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace bitplan::cli {

Table::Table(const std::vector<std::string>& titles) {
  std::vector<std::string> row;
  for (const auto& title : titles) {
    right_.push_back(title.front() == '>');
    row.push_back(right_.back() ? title.substr(1) : title);
  }
  rows_.push_back(std::move(row));
  Rule();
}

void Table::Row(std::vector<std::string> cells) {
  cells.resize(right_.size());
  rows_.push_back(std::move(cells));
}

void Table::Rule() { rows_.emplace_back(); }

std::string Table::Render() const {
  std::vector<std::size_t> widths(right_.size(), 0);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < widths.size(); ++i) {
      if (i > 0) line += "  ";
      if (row.empty()) {
        line += std::string(widths[i], '-');
      } else {
        line += right_[i] ? fmt::format("{:>{}}", row[i], widths[i]) : fmt::format("{:<{}}", row[i], widths[i]);
      }
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string ShapeText(const std::vector<std::int64_t>& shape) { return fmt::format("{}", fmt::join(shape, "x")); }

}  // namespace bitplan::cli
