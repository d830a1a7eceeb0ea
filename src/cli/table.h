// Plain text tables: columns as wide as their widest cell, numbers to the right.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bitplan::cli {

class Table {
 public:
  // A title that begins with '>' names a right-aligned column.
  explicit Table(const std::vector<std::string>& titles);
  void Row(std::vector<std::string> cells);
  // A line of dashes before the next row.
  void Rule();
  [[nodiscard]] std::string Render() const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;  // an empty row is a rule
};

// [20, 1, 5, 5] -> "20x1x5x5".
[[nodiscard]] std::string ShapeText(const std::vector<std::int64_t>& shape);

}  // namespace bitplan::cli
