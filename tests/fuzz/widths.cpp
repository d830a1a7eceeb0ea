#include "bitplan/io/widths.h"

#include "fuzz/targets.h"

namespace bitplan::fuzz {

void FuzzWidthsCsv(std::string_view bytes) { (void)ParseWidths(std::string(bytes), "widths.csv"); }
void FuzzWidthsYaml(std::string_view bytes) { (void)ParseWidths(std::string(bytes), "widths.yaml"); }

}  // namespace bitplan::fuzz
