// Text of a file as a message quotes it.
#pragma once

#include <algorithm>
#include <string>

namespace bitplan {

// The text with blanks for line feeds and other control characters: messages are one line, whatever they quote.
[[nodiscard]] inline std::string OneLine(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return text;
}

}  // namespace bitplan
