#include "bitplan/pipeline/import.h"

#include <fmt/format.h>

#include <map>
#include <optional>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/io/widths.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

// Widths in the order of the layers.
std::vector<int> BitsByName(const bitplan::Network& network, const std::vector<NamedWidth>& widths,
                            const std::filesystem::path& file) {
  std::map<std::string, std::size_t> layer_of;
  std::vector<std::string> names;
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    layer_of.emplace(network.layers[l].parameter, l);
    layer_of[network.layers[l].name] = l;
    names.push_back(network.layers[l].name);
  }
  std::vector<std::optional<int>> found(network.layers.size());
  for (const NamedWidth& width : widths) {
    const auto layer = layer_of.find(width.name);
    if (layer == layer_of.end()) {
      throw Error(ErrorKind::kData, file.string() + ": " + UnknownNameMessage("layer", width.name, names));
    }
    if (found[layer->second]) throw Error(ErrorKind::kData, file.string() + ": layer '" + width.name + "' comes twice");
    found[layer->second] = width.bits;
  }
  std::vector<int> bits;
  for (std::size_t l = 0; l < found.size(); ++l) {
    if (!found[l]) {
      throw Error(ErrorKind::kData,
                  fmt::format("{}: layer '{}' has no width; 32 leaves a layer alone", file.string(), names[l]));
    }
    bits.push_back(*found[l]);
  }
  return bits;
}

}  // namespace

RunReport ImportPlan(const ImportOptions& options, ProgressSink& progress) {
  const auto widths = ParseWidths(ReadFile(options.widths, "widths"), options.widths.string());
  StageChain chain(options.recipe, progress);
  const auto bits = BitsByName(chain.Model(), widths, options.widths);
  Plan asked;  // for the stages: the widths that they have to know
  asked.quantizer = chain.recipe().quantizer;
  const auto& activations = chain.recipe().allocate.activation_bits;
  for (const int width : bits) {
    asked.layers.emplace_back();
    asked.layers.back().bits = width;
    if (activations.size() == 1) asked.layers.back().activation_bits = activations.front();
  }
  if (asked.quantizer.range == "posterior") asked.posterior_sha256 = chain.PosteriorRecord().input;
  chain.Follow(asked);
  Solution solution;
  solution.bits = bits;
  solution.choices.resize(bits.size());
  solution.predicted_loss_rise = chain.PredictedLossRise(bits);
  RunReport report;
  report.folder = chain.folder().path();
  report.plan = chain.Draft(solution);
  report.plan.allocator = "imported";
  report.plan.allocator_options.clear();
  report.plan.budget = {AverageBits(), report.plan.achieved.average_bits};
  chain.RefreshChoices(report.plan);
  report.plan_file = options.out_plan;
  if (report.plan_file.empty()) {
    report.plan_file = chain.folder().File("plan.yaml");
    (void)chain.PutInPlace(report.plan);
  } else {
    WriteFileAtomically(report.plan_file, DumpPlan(report.plan));
  }
  report.stages = chain.statuses();
  return report;
}

}  // namespace bitplan::pipeline
