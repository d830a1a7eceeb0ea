#include "cli/render_parts.h"

#include <fmt/core.h>

#include <algorithm>

#include "bitplan/core/counted.h"
#include "cli/console.h"

namespace bitplan::cli {
namespace {

// Layers and tensors that stay in float for the same reason.
struct FloatGroup {
  std::string reason;
  std::vector<std::string> names;
  std::int64_t weights = 0;
};

}  // namespace

std::string StagesText(const std::vector<pipeline::StageStatus>& stages) {
  std::string text;
  for (const auto& stage : stages) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", stage.name,
                        stage.reused ? "unchanged" : Duration(stage.seconds));
  }
  return fmt::format("stages             {}\n", text);
}

std::string PointsText(const PairedComparison& paired, double sign) {
  const double low = sign > 0.0 ? paired.ci_low : -paired.ci_high, high = sign > 0.0 ? paired.ci_high : -paired.ci_low;
  return fmt::format("{:+.2f} [{:+.2f}, {:+.2f}]", 100.0 * sign * paired.drop + 0.0, 100.0 * low + 0.0,
                     100.0 * high + 0.0);  // + 0.0: no negative zero
}

std::string NotesText(const std::vector<std::string>& notes) {
  std::string text;
  for (const auto& note : notes) text += fmt::format("note               {}\n", note);
  return text;
}

std::string LeftInFloatText(const LeftInFloat& left) {
  constexpr std::size_t kNamed = 3;
  std::vector<FloatGroup> groups;
  for (const auto& tensor : left.tensors) {
    const auto same = [&](const FloatGroup& group) { return group.reason == tensor.reason; };
    auto group = std::find_if(groups.begin(), groups.end(), same);
    if (group == groups.end()) group = groups.insert(group, {tensor.reason, {}, 0});
    group->names.push_back(tensor.name);
    group->weights += tensor.weights();
  }
  std::stable_sort(groups.begin(), groups.end(), [](auto& a, auto& b) { return a.weights > b.weights; });
  std::string text =
      fmt::format("left in float      {:.2g} % of all weights, {}", 100.0 * left.share, Grouped(left.weights));
  for (const auto& group : groups) {
    text += &group == groups.data() ? ": " : "; ";
    if (group.reason == "bias") {
      text += fmt::format("{} in {}", Grouped(group.weights), Counted(std::ssize(group.names), "bias", "biases"));
      continue;
    }
    if (group.reason == "batch norm") {
      text += fmt::format("{} of batch norms", Grouped(group.weights));
      continue;
    }
    for (std::size_t i = 0; i < std::min(kNamed, group.names.size()); ++i) {
      text += (i == 0 ? "" : ", ") + group.names[i];
    }
    if (group.names.size() > kNamed) text += fmt::format(" and {} more", group.names.size() - kNamed);
    text += fmt::format(" ({})", group.reason);
  }
  return text + "\n";
}

}  // namespace bitplan::cli
