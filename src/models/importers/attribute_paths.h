// Names of a file as paths of attributes of a module.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>

namespace bitplan {

// "layer1.0.conv1.weight" stays as it is and means weight of conv1 of 0 of layer1; '/' divides as '.' does; any other
// character that no name in TorchScript may have becomes '_'. A path that is taken already gets a number.
class AttributePaths {
 public:
  [[nodiscard]] std::string Take(std::string_view name);

 private:
  [[nodiscard]] bool Fits(const std::string& path) const;

  std::set<std::string> tensors_, modules_;
  std::map<std::string, int> numbers_;  // that a path gets next
};

}  // namespace bitplan
