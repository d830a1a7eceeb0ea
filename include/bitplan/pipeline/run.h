// `bitplan run`: a recipe becomes a verified plan.
//
//   model -> posterior -> sensitivity -> allocate -> apply -> verify
//
// A stage runs when something that it reads has changed: another budget runs allocate, apply and verify and nothing
// above. Files in the output folder: model.pt (when trained), posterior.pt, fits.pt (scales of all layers at all
// widths), sensitivity.json, draws.json, manifest.json, and of every plan plan.yaml, quantized.pt and codes.safetensors
// (codes and scales of its layers) in plans/NAME; NAME states budget and allocator. The newest have these names in the
// folder too. A plan is written unverified as soon as the bits are known, and again with the measurement; one that was
// measured here before is put in place again without running anything.
//
// Example: a verified plan of three bits a weight.
//
//   #include <bitplan/pipeline/run.h>
//   #include <cstdio>
//   bitplan::pipeline::RecipeOptions options;
//   options.recipe = "recipes/synthetic-digits.yaml";
//   options.overrides = {"allocate.budget.average_bits=3"};
//   options.out = "out/digits";
//   const bitplan::pipeline::RunReport report = bitplan::pipeline::Run(options, bitplan::SilentSink());
//   const bitplan::Plan& plan = report.plan;
//   std::printf("%.2f bits a weight, drop %.4f\n", plan.achieved.average_bits, plan.verified->accuracy_drop.drop);
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/correction.h"
#include "bitplan/core/plan.h"
#include "bitplan/core/progress.h"
#include "bitplan/pipeline/options.h"

namespace bitplan::pipeline {

struct RunReport {
  Plan plan;
  std::filesystem::path folder;
  std::filesystem::path plan_file;
  std::filesystem::path quantized_file;  // TorchScript; empty when none was written
  std::string weights_file;              // model.weights as the recipe names it, or empty
  std::filesystem::path page_file;       // report.html; empty when none was written
  std::int64_t packed_bytes = 0;         // of the file of `export --to packed`; 0: not applied
  std::vector<StageStatus> stages;       // in the order in which they were looked at
  double allocate_ms = 0.0;              // from the loaded sensitivity table to the bits
  std::vector<double>
      shadow_prices{};                 // one per limit: nats that one more bit or byte is worth; 0: nothing, or unknown
  std::vector<std::string> classes{};  // names by number; empty where labels are numbers
  std::string sample = "image";        // what one of the data is called: image, row
  // data.calibration, where it would be more than half of its split and a fifth was taken; else 0.
  std::int64_t calibration_asked = 0;
  std::vector<std::string> notes;                        // figures that can hardly be right, and what they usually mean
  std::string allocator_note;                            // one line of the allocator, or empty
  std::vector<PinCost> pins;                             // what every pin of the recipe costs
  std::vector<std::vector<double>> width_probabilities;  // [layers][allocate.bits], of allocators that state them
  std::vector<CorrectionCandidate> corrections;  // tried on the calibration images; empty unless an "auto" chose
  // `verify --against`: the other plan's network in the place of the float one, this plan's as `quantized`; the drop is
  // how much this plan is worse than the other.
  std::optional<Verification> against;
  std::filesystem::path against_file;
};

// Error kinds as in core/error.h; on any of them every file in the folder is whole.
[[nodiscard]] RunReport Run(const RecipeOptions& options, ProgressSink& progress);

// `bitplan allocate`: the stages down to the bits; plan.yaml has no `verified` part unless this very plan was verified
// before, and its batch-norm method is the recipe's.
[[nodiscard]] RunReport Allocate(const RecipeOptions& options, ProgressSink& progress);

struct VerifyPlanOptions {
  RecipeOptions recipe;
  std::filesystem::path plan;      // empty: plan.yaml of the output folder
  std::filesystem::path out_plan;  // where the verified plan is written; empty: in place
  std::filesystem::path against;   // another plan for the same model, measured on the same samples; empty: none
  bool guard = false;              // fall back to one width when that is better on calibration images
  // The file may be of other weights of the same layers (name, kind and shape): its widths, grids and ranges are taken,
  // scales and corrections are fitted to the model at hand. Written to `out_plan`, or plan.yaml of the output folder.
  bool transfer = false;
};

// `bitplan verify`: measures the bits of a plan file, also of one edited by hand, with the quantizer and the grids that
// the file states; prediction, sizes and measurement in the file are replaced. Error(kData) when the plan is for
// another model.
[[nodiscard]] RunReport Verify(const VerifyPlanOptions& options, ProgressSink& progress);

}  // namespace bitplan::pipeline
