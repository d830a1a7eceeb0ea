// sensitivity.json: the allocation problem, saved once and solved again for any number of budgets.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/problem.h"

namespace bitplan {

[[nodiscard]] std::string DumpProblem(const AllocationProblem& problem);
// Error(kData) when the text is not a version-1 table; doubles survive the round trip bit for bit.
[[nodiscard]] AllocationProblem ParseProblem(const std::string& text, const std::string& file_name);
[[nodiscard]] AllocationProblem LoadProblem(const std::filesystem::path& file);

// draws.json, beside it: what other networks of the posterior would have changed. Error(kNotFound); Error(kData) when
// it has not the units and widths of `table`.
[[nodiscard]] std::string DumpPosteriorDraws(const std::vector<PosteriorDraw>& draws);
[[nodiscard]] std::vector<PosteriorDraw> LoadPosteriorDraws(const std::filesystem::path& file,
                                                            const AllocationProblem& table);

}  // namespace bitplan
