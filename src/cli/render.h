// Reports as text for people and as JSON for programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bitplan/pipeline/bayes.h"
#include "bitplan/pipeline/compare.h"
#include "bitplan/pipeline/curve.h"
#include "bitplan/pipeline/diff.h"
#include "bitplan/pipeline/export.h"
#include "bitplan/pipeline/inspect.h"
#include "bitplan/pipeline/list.h"
#include "bitplan/pipeline/make_data.h"
#include "bitplan/pipeline/measure_curve.h"
#include "bitplan/pipeline/rank.h"
#include "bitplan/pipeline/run.h"
#include "bitplan/pipeline/stages.h"
#include "bitplan/pipeline/sure.h"

namespace bitplan::cli {

[[nodiscard]] std::string Text(const pipeline::RunReport& report);
[[nodiscard]] std::string Text(const pipeline::ModelReport& report);
[[nodiscard]] std::string Text(const pipeline::PosteriorReport& report);
[[nodiscard]] std::string Text(const pipeline::InspectReport& report);
[[nodiscard]] std::string Text(const pipeline::ListReport& report);
[[nodiscard]] std::string Text(const pipeline::DiffReport& report);
[[nodiscard]] std::string Text(const pipeline::ExportReport& report);
[[nodiscard]] std::string Text(const pipeline::RankReport& report);
[[nodiscard]] std::string Text(const pipeline::CompareReport& report);
[[nodiscard]] std::string Text(const pipeline::SureReport& report);
[[nodiscard]] std::string Text(const pipeline::CurveReport& report);
[[nodiscard]] std::string Text(const pipeline::MeasuredCurveReport& report);
[[nodiscard]] std::string Text(const pipeline::BayesReport& report);
[[nodiscard]] std::string Text(const pipeline::MakeDataReport& report);

[[nodiscard]] nlohmann::ordered_json Json(const pipeline::RunReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::ModelReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::PosteriorReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::InspectReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::ListReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::DiffReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::ExportReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::RankReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::CompareReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::SureReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::CurveReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::MeasuredCurveReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::BayesReport& report);
[[nodiscard]] nlohmann::ordered_json Json(const pipeline::MakeDataReport& report);

}  // namespace bitplan::cli
