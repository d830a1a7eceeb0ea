// Every layer as compensated rounding makes it when it alone is quantized: the errors that a table of deployed plans is
// about. Nearest rounding, which other metrics look at, errs two to ten times as much at one and two bits, and not by
// the same factor in every layer.
#pragma once

#include "bitplan/core/progress.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "sensitivity/units.h"

namespace bitplan {

// Inputs of every layer come from the float network on
// 512 training images (stream "sensitivity/compensated"); a layer whose inputs cannot be gathered (HasKnownInputs)
// takes its nearest levels. A mean that corrections take out of the outputs is left out (CentredLayers).
[[nodiscard]] LayerCodes CompensateAlone(const SensitivityInputs& inputs, const QuantizedLayers& quantized,
                                         ProgressSink& progress);

}  // namespace bitplan
