// The widths of a plan as the layer_config of AutoRound: AutoRound(model, layer_config=config). AutoRound rounds by
// itself: it takes widths, not weights.
//
// A name is that of a linear layer; group_size -1 is a scale for every output channel, 0 one for the layer.
// Source: github.com/intel/auto-round, docs/step_by_step.md ("layer_config"),
// auto_round/compressors/layer_config/resolver.py and schemes.py, commit b9f3d00 (after v0.14.0). A layer with a size
// that is no multiple of 32 stays in float there.
#include <nlohmann/json.hpp>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "exporters/planned_widths.h"
#include "io/json_text.h"

namespace bitplan {

HeldLayer AutoRoundHolds(const Layer& layer) {
  constexpr std::int64_t kMultiple = 32;
  const ConsumerLimits limits{
      .zero = {2, 3, 4, 5, 6, 7, 8}, .half = {}, .negative_scales = false, .rounds_itself = true, .activations = false};
  if (layer.kind != "linear") return {limits, "autoround rounds linear layers"};
  if (layer.shape[0] % kMultiple != 0 || layer.shape[1] % kMultiple != 0) {
    return {limits, "autoround rounds linear layers whose sizes are multiples of 32"};
  }
  return {limits, ""};
}

void ExportAutoRound(const ExportInputs& inputs, const ExportFiles& files) {
  RequireModules(inputs.network, "autoround");
  nlohmann::ordered_json config = nlohmann::ordered_json::object();
  const int group = inputs.plan.quantizer.granularity == "tensor" ? 0 : -1;
  for (const PlanLayer& layer :
       PlannedWidths(inputs.plan, {.format = "autoround", .narrowest = 2, .widest = 8, .only_linear = true})) {
    config[layer.name] = {
        {"bits", layer.bits}, {"group_size", group}, {"sym", true}, {"data_type", "int"}, {"act_bits", 16}};
  }
  for (const PlanLayer& layer : inputs.plan.layers) {
    if (layer.kind == "linear" && layer.bits > kWidestPlanned) {
      config[layer.name] = {{"bits", 16}, {"data_type", "float"}, {"act_bits", 16}};
    }
  }
  WriteFileAtomically(files.first, JsonText(config, 2) + "\n");
}

}  // namespace bitplan
