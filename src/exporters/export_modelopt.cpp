// The widths of a plan as a configuration of NVIDIA Model Optimizer: mtq.quantize(model, config, forward_loop). Model
// Optimizer rounds by itself: it takes widths, not weights.
//
// quant_cfg is a list that is applied in order: first every quantizer is switched off, then the weight quantizer of
// each layer of the plan gets its num_bits. A name without a wildcard matches that module alone. Source:
// github.com/NVIDIA/Model-Optimizer, modelopt/torch/quantization/config.py and docs/source/guides/_quant_cfg.rst,
// commit a2fbac7 (0.47.0dev).
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "exporters/planned_widths.h"
#include "io/json_text.h"

namespace bitplan {

// num_bits of symmetric integers; it finds the scales by itself, from the largest weight.
HeldLayer ModelOptHolds(const Layer&) {
  return {.limits = {.zero = {2, 3, 4, 5, 6, 7, 8},
                     .half = {},
                     .negative_scales = false,
                     .rounds_itself = true,
                     .activations = false}};
}

void ExportModelOpt(const ExportInputs& inputs, const ExportFiles& files) {
  using Json = nlohmann::ordered_json;
  RequireModules(inputs.network, "modelopt");
  Json list = Json::array({{{"quantizer_name", "*"}, {"enable", false}}});
  for (const PlanLayer& layer : PlannedWidths(inputs.plan, {.format = "modelopt", .narrowest = 2, .widest = 8})) {
    const Json axis = inputs.plan.quantizer.granularity == "tensor" ? Json(nullptr) : Json(0);
    list.push_back(
        {{"quantizer_name", layer.name + ".weight_quantizer"}, {"cfg", {{"num_bits", layer.bits}, {"axis", axis}}}});
  }
  WriteFileAtomically(files.first, JsonText(Json{{"quant_cfg", list}, {"algorithm", "max"}}, 2) + "\n");
}

}  // namespace bitplan
