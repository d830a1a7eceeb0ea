#include "models/importers/attribute_paths.h"

#include <fmt/format.h>

#include <vector>

namespace bitplan {
namespace {

constexpr std::size_t kLongestPart = 100, kDeepestPath = 16;

bool IsReserved(const std::string& part) {
  static const std::set<std::string> words = {
      "False",    "None", "True",  "and",    "as",       "assert",  "async", "await",   "break", "class",  "continue",
      "def",      "del",  "elif",  "else",   "except",   "finally", "for",   "forward", "from",  "global", "if",
      "import",   "in",   "is",    "lambda", "nonlocal", "not",     "or",    "pass",    "raise", "return", "self",
      "training", "try",  "while", "with",   "yield",    "inf",     "nan",   "print"};
  return words.contains(part);
}

std::vector<std::string> PartsOf(std::string_view name) {
  std::vector<std::string> parts(1);
  for (const char c : name) {
    const bool divides = c == '.' || c == '/';
    if (divides && parts.back().empty()) continue;
    if (divides && parts.size() < kDeepestPath) {
      parts.emplace_back();
      continue;
    }
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    if (parts.back().size() < kLongestPart) parts.back() += plain ? c : '_';
  }
  if (parts.back().empty()) parts.pop_back();
  if (parts.empty()) parts.emplace_back("tensor");
  for (std::string& part : parts) {
    if (IsReserved(part)) part += '_';
  }
  return parts;
}

}  // namespace

bool AttributePaths::Fits(const std::string& path) const {
  if (tensors_.contains(path) || modules_.contains(path)) return false;
  for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', dot + 1)) {
    if (tensors_.contains(path.substr(0, dot))) return false;
  }
  return true;
}

std::string AttributePaths::Take(std::string_view name) {
  constexpr std::string_view kExporter = "onnx::";  // before the numbers that PyTorch's exporter makes up
  if (name.starts_with(kExporter)) name.remove_prefix(kExporter.size());
  const std::string wish = fmt::format("{}", fmt::join(PartsOf(name), "."));
  std::string path = wish;
  for (int& number = numbers_.try_emplace(wish, 2).first->second; !Fits(path); ++number) {
    // Behind its last part, or, where a tensor has the name of one of its modules, as one name.
    path = fmt::format("{}_{}", wish, number);
    if (!Fits(path)) path = fmt::format("{}_{}", fmt::join(PartsOf(name), "_"), number);
  }
  tensors_.insert(path);
  for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', dot + 1)) {
    modules_.insert(path.substr(0, dot));
  }
  return path;
}

}  // namespace bitplan
