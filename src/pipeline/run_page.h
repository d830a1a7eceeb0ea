// report.html of a run: what is known about a plan, for people.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {

// Writes it and returns the file: report.html of the folder, or run/report.html where a comparison has left its own.
std::filesystem::path LeaveRunPage(StageChain& chain, const Plan& plan, const std::vector<std::string>& notes);

}  // namespace bitplan::pipeline
