#include "bitplan/io/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bitplan/core/error.h"
#include "bitplan/core/one_line.h"
#include "bitplan/core/suggest.h"
#include "bitplan/io/files.h"
#include "io/json_whole.h"

namespace bitplan {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kTableVersion = 1;
constexpr const char* kFormat = "bitplan_sensitivity";

// Unknown keys are errors, as in every file of ours; missing ones throw when they are read.
void CheckKeys(const Json& object, const std::vector<std::string>& known) {
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw Error(ErrorKind::kData, UnknownNameMessage("key", key, known));
    }
  }
}

Unit ReadUnit(const Json& item) {
  CheckKeys(item, {"name", "weights", "scales", "macs", "loss_rise", "replicates", "coherence", "score_percentiles",
                   "log_sigma_percentiles"});
  Unit unit;
  unit.name = item.at("name").get<std::string>();
  unit.weights = WholeNumber(item.at("weights"));
  unit.scales = WholeNumber(item.at("scales"));
  unit.macs = WholeNumber(item.at("macs"));
  unit.score_percentiles = item.at("score_percentiles").get<std::vector<double>>();
  unit.coherence = item.at("coherence").get<std::vector<double>>();
  unit.log_sigma_percentiles = item.at("log_sigma_percentiles").get<std::vector<double>>();
  return unit;
}

AllocationProblem Read(const Json& root) {
  if (!root.is_object() || !root.contains(kFormat)) {
    throw Error(ErrorKind::kData, fmt::format("is no sensitivity table: the key '{}' is missing", kFormat));
  }
  if (root.at(kFormat) != kTableVersion) {
    throw Error(ErrorKind::kData, fmt::format("table format {} is unknown; this program reads version {}",
                                              root.at(kFormat).dump(), kTableVersion));
  }
  CheckKeys(root, {kFormat, "widths", "units"});
  AllocationProblem problem;
  for (const std::int64_t width : WholeNumbers(root.at("widths"))) {
    if (width < 0 || width > 8) throw Error(ErrorKind::kData, fmt::format("width {}; it must be in 0..8", width));
    problem.widths.push_back(static_cast<int>(width));
  }
  for (const Json& item : root.at("units")) {
    problem.units.push_back(ReadUnit(item));
    problem.loss_rise.push_back(item.at("loss_rise").get<std::vector<double>>());
    if (!item.contains("replicates")) continue;
    const auto rows = item.at("replicates").get<std::vector<std::vector<double>>>();
    problem.replicates.resize(std::max(problem.replicates.size(), rows.size()));
    for (std::size_t r = 0; r < rows.size(); ++r) problem.replicates[r].push_back(rows[r]);
  }
  problem.Validate();
  return problem;
}

}  // namespace

std::string DumpProblem(const AllocationProblem& problem) {
  problem.Validate();
  std::string text =
      fmt::format("{{\"{}\": {}, \"widths\": {}, \"units\": [", kFormat, kTableVersion, Json(problem.widths).dump());
  for (std::size_t u = 0; u < problem.units.size(); ++u) {
    const Unit& unit = problem.units[u];
    Json item = {{"name", unit.name},
                 {"weights", unit.weights},
                 {"scales", unit.scales},
                 {"macs", unit.macs},
                 {"loss_rise", problem.loss_rise[u]},
                 {"coherence", unit.coherence},
                 {"score_percentiles", unit.score_percentiles},
                 {"log_sigma_percentiles", unit.log_sigma_percentiles}};
    for (const auto& replicate : problem.replicates) item["replicates"].push_back(replicate[u]);
    text += (u == 0 ? "\n" : ",\n") + item.dump();
  }
  return text + "\n]}\n";
}

AllocationProblem ParseProblem(const std::string& text, const std::string& file_name) {
  try {
    return Read(Json::parse(text));
  } catch (const Json::exception& error) {
    throw Error(ErrorKind::kData, file_name + ": not a sensitivity table: " + OneLine(error.what()));
  } catch (const Error& error) {
    throw Error(ErrorKind::kData, file_name + ": " + OneLine(error.what()));
  }
}

std::string DumpPosteriorDraws(const std::vector<PosteriorDraw>& draws) {
  Json root = Json::array();
  for (const PosteriorDraw& draw : draws) {
    root.push_back({{"rise", draw.rise}, {"score", draw.score}, {"log_sigma", draw.log_sigma}});
  }
  return root.dump() + "\n";
}

std::vector<PosteriorDraw> LoadPosteriorDraws(const std::filesystem::path& file, const AllocationProblem& table) {
  const std::string text = ReadFile(file, "posterior draws");
  try {
    std::vector<PosteriorDraw> draws;
    for (const Json& item : Json::parse(text)) {
      PosteriorDraw& draw = draws.emplace_back();
      item.at("rise").get_to(draw.rise);
      item.at("score").get_to(draw.score);
      item.at("log_sigma").get_to(draw.log_sigma);
      const auto fits = [&](const std::vector<std::vector<double>>& rows, std::size_t columns) {
        return rows.size() == table.units.size() &&
               std::all_of(rows.begin(), rows.end(), [&](const auto& row) { return row.size() == columns; });
      };
      const std::size_t columns = draw.score.empty() || !draw.score.front().empty() ? kPercentiles : 0;
      if (!fits(draw.rise, table.widths.size()) || !fits(draw.score, columns) || !fits(draw.log_sigma, columns)) {
        throw Error(ErrorKind::kData, file.string() + ": the draws are not of this table's layers and widths");
      }
    }
    return draws;
  } catch (const Json::exception& error) {
    throw Error(ErrorKind::kData, file.string() + ": not the draws of a posterior: " + OneLine(error.what()));
  }
}

AllocationProblem LoadProblem(const std::filesystem::path& file) {
  return ParseProblem(ReadFile(file, "sensitivity table"), file.string());
}

}  // namespace bitplan
