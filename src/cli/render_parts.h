// Lines that several reports share.
#pragma once

#include <string>
#include <vector>

#include "bitplan/core/plan.h"
#include "bitplan/pipeline/options.h"

namespace bitplan::cli {

[[nodiscard]] std::string StagesText(const std::vector<pipeline::StageStatus>& stages);

// "+0.35 [+0.10, +0.60]": a difference of accuracies in points, `sign` -1 the other way round.
[[nodiscard]] std::string PointsText(const PairedComparison& paired, double sign);

[[nodiscard]] std::string NotesText(const std::vector<std::string>& notes);

// The share, then the groups, the heaviest first: "lstm.weight_hh_l0, lstm.weight_ih_l0 (used by aten::lstm); ...".
[[nodiscard]] std::string LeftInFloatText(const LeftInFloat& left);

}  // namespace bitplan::cli
