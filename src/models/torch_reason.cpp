#include "models/torch_reason.h"

#include <c10/util/Exception.h>

#include <regex>
#include <sstream>

namespace bitplan {

std::string TorchReason(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::istringstream text(torch_error != nullptr ? torch_error->what_without_backtrace() : error.what());
  static const std::regex raised(R"((?:[A-Za-z_]+\.)*[A-Za-z]*(?:Error|Exception): (.*))");
  std::string first, reason;
  for (std::string line; std::getline(text, line);) {
    std::smatch match;
    if (std::regex_match(line, match, raised)) reason = match[1];
    if (first.empty()) first = line;
  }
  if (reason.empty()) reason = first;
  if (reason.empty()) reason = "unknown error";
  while (reason.ends_with('.') || reason.ends_with(' ')) reason.pop_back();
  return reason;
}

}  // namespace bitplan
