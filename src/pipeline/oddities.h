// Figures of a run that can hardly be right, each with what it usually means. Nothing here changes a plan.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bitplan/core/plan.h"
#include "bitplan/core/problem.h"

namespace bitplan::pipeline {

struct OddityFacts {
  int classes = 0;                                  // of the data; 0: not known
  const AllocationProblem* table = nullptr;         // in nats per sample; null: not known
  std::optional<double> calibration_accuracy = {};  // of the float network, share of images; where it has seen them
  std::int64_t outputs = 0;                         // of a network from a file; 0: not known
  std::int64_t present = 0;       // classes that training images have; 0: not known, or they have no labels
  std::int64_t test_files = 0;    // of the user's own
  std::int64_t shared_files = 0;  // of these, those that are training files too
  std::string sample = "image";   // what one of the data is called: image, row
  std::string unseen = "give data.calibration_images that it has not seen";  // what to do about images known by heart
};

// One sentence for each:
//   float accuracy no better than guessing one of the classes;
//   a quantized network significantly and more than two points better than the float one, with what the same correction
//   makes of the float network where it changes it;
//   a sensitivity table in which no width of any layer costs anything, or of some layers that are planned;
//   five points and more lost where next to no loss was predicted;
//   calibration images recognized more than ten points better than those measured on;
//   files that are measured on and trained on, or chosen by;
//   training images of one class only, or fewer classes than the network has outputs.
// A network that is as good as its data and tables that tell layers apart give none.
[[nodiscard]] std::vector<std::string> Oddities(const Plan& plan, const OddityFacts& facts);

struct NamedPlan {
  std::string name;  // "uniform at 2 bits"
  Plan plan;
};

// The same of many plans for one network: what is odd about the network or its table once, what is odd about plans with
// the name of the first and how many more there are.
[[nodiscard]] std::vector<std::string> OdditiesOfMany(const std::vector<NamedPlan>& plans, const OddityFacts& facts);

}  // namespace bitplan::pipeline
