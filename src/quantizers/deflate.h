// Bytes made shorter without loss, for files that hold codes.
#pragma once

#include <string>

namespace bitplan {

// zlib, as short as it goes. Error(kInternal) when zlib fails.
[[nodiscard]] std::string Deflated(const std::string& bytes);

}  // namespace bitplan
