// Bit widths that another tool chose: names of layers with their bits, in the forms that tools write.
#pragma once

#include <string>
#include <vector>

namespace bitplan {

struct NamedWidth {
  std::string name;
  int bits = 0;  // 0..8, or 16/32 for "left alone"
};

// `file_name` says what the text is: .json, .yaml and .yml are YAML (JSON is YAML too), anything else is CSV.
//
//   CSV     name,bits on every line; also with ';' or tabs, "quoted" names, # comments. A first line without a number
//           names the columns: one of name, layer, module and one of bits, num_bits, bitwidth, width.
//   YAML    {conv1: 8, fc1: {bits: 2}}, or a list of {name: conv1, bits: 8} with the same names of keys, or a map with
//           such a list under `layers`: a plan is one.
//
// Error(kData), "file:line: what", for another form, a width that is none, a name that comes twice, or no name at all.
[[nodiscard]] std::vector<NamedWidth> ParseWidths(const std::string& text, const std::string& file_name);

}  // namespace bitplan
