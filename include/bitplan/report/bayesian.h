// What quantized Bayesian networks were measured to do, and its report.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/bayes/widths.h"
#include "bitplan/core/plan.h"
#include "bitplan/core/statistics.h"

namespace bitplan {

// One network on one test split.
struct BayesMeasurement {
  Metrics metrics;
  double total = 0.0, aleatoric = 0.0, epistemic = 0.0;      // means over the images, nats
  std::vector<double> aleatoric_without, epistemic_without;  // with a block of draws left out
};

// A plan of one seed on calibration images of one kind that its scales were not fitted to.
struct BayesCapCheck {
  struct Bounded {
    double value = 0.0, at_most = 0.0;  // the bound that a cap is held against; infinite: not known
  };
  double budget = 0.0;      // bits per parameter
  bool confirming = false;  // false: the images that choose the budget
  std::string kind{};       // "one label", "several labels"
  std::int64_t images = 0;
  Bounded accuracy_drop{}, aleatoric_drift{}, epistemic_drift{};
};

// One network of one seed. Splits by their role: clean, ambiguous, out-of-distribution and, with more such sets,
// out-of-distribution-2 and so on (uncertainty only).
struct BayesSeedResult {
  std::uint64_t seed = 0;
  std::map<std::string, BayesMeasurement> splits;
  // By role: ambiguous against clean by aleatoric uncertainty; what is out of distribution against both by epistemic
  // uncertainty.
  std::map<std::string, double> auroc;
  std::int64_t stored_bytes = 0;    // of the packed file
  std::int64_t float_bytes = 0;     // of the same file with every parameter in float32
  std::vector<BayesWidths> widths;  // of every layer
  std::vector<BayesCapCheck> caps;  // of a plan with caps, in the order of the checks
};

// Accuracy lost against another network of the same seed on the same images, the mean over the seeds, and its 95 %
// interval over test images and draws, for these very networks. `seeds`: of every seed, and for other seeds.
struct BayesDrop {
  double drop = 0.0, ci_low = 0.0, ci_high = 0.0;
  MeanOverSeeds seeds{};
};

// Relative change of a mean uncertainty against another network of the same seed on the same draws, the mean over the
// seeds. 95 % interval by the jackknife over blocks of draws: what other draws of the same networks would have given.
// `seeds`: of every seed, and for other seeds.
struct BayesDrift {
  double change = 0.0, ci_low = 0.0, ci_high = 0.0;
  double worst = 0.0;  // of the seed that changed most, with its sign
  MeanOverSeeds seeds{};
};

// Of a row against another one.
struct BayesChanges {
  std::map<std::string, BayesDrop> drops{};                    // by role, and "all" for clean and ambiguous together
  std::map<std::string, BayesDrift> aleatoric{}, epistemic{};  // by role
  std::map<std::string, MeanOverSeeds> auroc{};                // by role, differences
};

struct BayesRow {
  std::string name{};    // "float", "float-fine-tuned", "jq-4-fine-tuned", "plan-2.67"
  std::string scheme{};  // vpq, spq, jq, plan; float: the control; empty: the float network
  std::string stage{};   // trained, fine-tuned, scratch; empty: float
  std::string sigma_scale{};
  double bits = 0.0;  // of whatever is rounded; of a plan its average
  std::vector<BayesSeedResult> seeds{};
  BayesChanges from_float{};    // empty: the float network
  BayesChanges from_control{};  // empty: the float network, the control, or no control
};

// Uncertainties of single images, for histograms.
struct BayesHistogram {
  std::string data;
  torch::Tensor float_aleatoric, float_epistemic, quantized_aleatoric, quantized_epistemic;  // float32 [images]
};

struct BayesComparison {
  std::string name;  // of the recipe
  std::string model;
  std::vector<std::string> layers;
  std::vector<std::pair<std::string, std::string>> data;  // role and data set
  std::map<std::string, std::int64_t> images;
  int draws = 0;
  std::vector<BayesRow> rows;
  std::string pictured;  // the row of the histograms
  std::vector<BayesHistogram> histograms;
};

// bayes.json, bayes.csv (a line for every network and split), bayes-changes.csv (a line for every change and AUROC,
// with both intervals), report.html, plots/ in `folder`; the names of what was written.
std::vector<std::string> WriteBayesComparison(const BayesComparison& comparison, const std::filesystem::path& folder);
// The content of bayes.json.
[[nodiscard]] std::string BayesJson(const BayesComparison& comparison);

// Mean over the seeds.
[[nodiscard]] double MeanAccuracy(const BayesRow& row, const std::string& role);
// Clean or ambiguous: its labels are those that the network was trained for.
[[nodiscard]] bool IsLabelledRole(const std::string& role);
// Over the seeds, by role.
[[nodiscard]] std::map<std::string, MeanOverSeeds> AurocOf(const BayesRow& row);

}  // namespace bitplan
