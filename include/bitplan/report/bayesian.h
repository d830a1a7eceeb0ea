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

namespace bitplan {

// One network on one test split.
struct BayesMeasurement {
  Metrics metrics;
  double total = 0.0, aleatoric = 0.0, epistemic = 0.0;      // means over the images, nats
  std::vector<double> aleatoric_without, epistemic_without;  // with a block of draws left out
};

// One network of one seed. Splits by their role: clean, ambiguous, out-of-distribution (uncertainty only).
struct BayesSeedResult {
  std::uint64_t seed = 0;
  std::map<std::string, BayesMeasurement> splits;
  double auroc_aleatoric = -1.0;    // ambiguous against clean, by aleatoric uncertainty; -1: no such split
  double auroc_epistemic = -1.0;    // out of distribution against everything else, by epistemic uncertainty
  std::int64_t stored_bytes = 0;    // of the packed file
  std::int64_t float_bytes = 0;     // of the same file with every parameter in float32
  std::vector<BayesWidths> widths;  // of every layer
};

// Accuracy lost against the float network of the same seed on the same images, the mean over the seeds.
struct BayesDrop {
  double drop = 0.0, ci_low = 0.0, ci_high = 0.0;
};

// Relative change of a mean uncertainty against the float network of the same seed on the same draws, the mean over the
// seeds. 95 % interval by the jackknife over blocks of draws: what other draws of the same networks would have given.
struct BayesDrift {
  double change = 0.0, ci_low = 0.0, ci_high = 0.0;
  double worst = 0.0;  // of the seed that changed most, with its sign
};

struct BayesRow {
  std::string name{};    // "float", "jq-4-log-fine-tuned", "plan-2.67"
  std::string scheme{};  // vpq, spq, jq; empty: float
  std::string stage{};   // trained, fine-tuned, scratch; empty: float
  std::string sigma_scale{};
  double bits = 0.0;  // of whatever is rounded; of a plan its average
  std::vector<BayesSeedResult> seeds{};
  std::map<std::string, BayesDrop> drops{};  // by role, and "all" for clean and ambiguous together; empty: float
  std::map<std::string, BayesDrift> aleatoric_drift{}, epistemic_drift{};  // by role
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

// bayes.json, bayes.csv, report.html, plots/ in `folder`; the names of what was written.
std::vector<std::string> WriteBayesComparison(const BayesComparison& comparison, const std::filesystem::path& folder);
// The content of bayes.json.
[[nodiscard]] std::string BayesJson(const BayesComparison& comparison);

// Mean over the seeds.
[[nodiscard]] double MeanAccuracy(const BayesRow& row, const std::string& role);

}  // namespace bitplan
