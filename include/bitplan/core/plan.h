// The answer: a bit width for every layer, with what it was made from and what was measured for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/core/budget.h"
#include "bitplan/core/figures.h"
#include "bitplan/core/options.h"

namespace bitplan {

struct PlanLayer {
  std::string name{};                 // attribute path of the layer, "features.3"
  std::string kind{};                 // conv2d, linear
  std::vector<std::int64_t> shape{};  // [out, in / groups, kh, kw] or [out, in]
  std::int64_t macs = 0;
  int bits = 0;               // 0..8, or 16/32 for "left alone"
  std::string grid = "zero";  // zero: a level at zero; half: levels at odd multiples of half a step
  std::string range = "mse";  // max, mse, posterior, output: what the scales were fitted to
  int activation_bits = 32;   // of its input: 2..8 or 16; 32: float
  double confidence = -1.0;   // how sure the width is, 0..1 (allocators/allocator.h); < 0: not stated

  [[nodiscard]] std::int64_t weights() const;
};

struct Metrics {
  double accuracy = 0.0;  // share of samples
  double nll = 0.0;       // nats per sample
  double brier = 0.0;     // sum over classes of squared error, mean over samples
  double ece = 0.0;       // expected calibration error, 15 equal-width bins
  // Of another task than classification everything that was measured, the score first. Then `accuracy` is that score,
  // whatever it is called, and `brier` and `ece` mean nothing.
  std::vector<Figure> figures{};
};

struct PairedComparison {
  double drop = 0.0;    // accuracy(float) - accuracy(quantized); of another task, of its score
  double ci_low = 0.0;  // paired bootstrap, 95 %
  double ci_high = 0.0;
  // Exact, two-sided; over several calibration seeds Student's (core/statistics.h). Classification only.
  double mcnemar_p = 1.0;
};

// The second reference: the float network with the correction that the quantized one got, on the same samples.
struct FloatCorrected {
  Metrics metrics;
  PairedComparison accuracy_drop;  // its accuracy less that of the quantized network
};

struct Verification {
  std::string data;  // "mnist/test"
  std::int64_t samples = 0;
  Metrics float_model;
  Metrics quantized;
  PairedComparison accuracy_drop;
  // Empty where the correction leaves a float network as it is (ChangesFloat in ptq/correction.h), so that
  // `float_model` is this reference too; and in plans of earlier versions.
  std::optional<FloatCorrected> float_corrected{};
  std::string task{};  // a name of Likelihoods(); empty: classification

  // What the drop is a drop of: a name of FigureKinds.
  [[nodiscard]] std::string score() const {
    return float_model.figures.empty() ? "accuracy" : float_model.figures.front().name;
  }
};

// `verify --guard`: the plan and one width for all layers at the same budget, both corrected the same way, measured on
// the half of the calibration images that chose no correction. The plan holds whichever had the smaller NLL.
struct PlanGuard {
  std::string data;       // "cifar10/calibration"
  double plan_nll = 0.0;  // nats per sample
  double uniform_nll = 0.0;
  std::string replaced;  // the allocator whose plan was worse than uniform; empty: the plan stayed
};

// `allocate.budget.drop`: the smallest plan found that surely loses no more than was asked. Its budget is what the
// search found. The first third of the calibration images chose the plans that were measured, and corrections; the rest
// held them against the bound, the largest first, until one failed. So the bound holds with 95 % confidence for the
// plan, however many were measured: for the network whose codes `sha256` names. Shares of samples.
struct PlanDrop {
  double at_most = 0.0;     // asked for
  std::string smallest;     // name of the resource
  std::string data;         // "cifar10/calibration"
  std::int64_t images = 0;  // without a part in any choice
  double value = 0.0;       // what the plan loses there
  double upper95 = 0.0;     // one-sided, of the drop (core/statistics.h)
  std::int64_t plans = 0;   // how many were measured
  std::string sha256{};     // of what the codes of the confirmed network follow from, as the plan states it
};

// quantizer.exportable: the plan keeps to what a format holds (its name is in the quantizer's options). The rises are
// predictions in the unit of achieved.predicted_loss_rise, by the same allocator at the same budget for the same
// layers; empty where that is not known: the allocator learns from the network, or the widths were edited since.
// What learned rounding did to the network of the plan.
struct PlanLearned {
  std::int64_t images = 0;           // training images that did not teach
  double before = 0.0, after = 0.0;  // mean divergence from the float network there, nats
  double moved = 0.0;                // share of the codes that changed
  bool kept = false;                 // false: it was no better, and the network was left as it was
};

struct PlanExportable {
  std::vector<int> bits;      // widths that the plan chose among
  std::vector<int> left_out;  // widths of the default allocate.bits that the format would store in a wider type
  std::string holds;          // grids and scales in words, "a level at zero, scales > 0"
  std::optional<double> predicted_loss_rise{}, unrestricted_loss_rise{};
};

// The images that corrections and the guard choose on.
struct PlanCalibration {
  std::int64_t images = 0;
  // split-off: of the training images, before training; training: of the training images of a model that comes from a
  // file and has probably seen them; file: of files of their own; test: of the test images, not measured on them
  std::string source;
  // Recipe::calibration_seed, where it is another than the recipe's seed.
  std::optional<std::uint64_t> seed{};
};

struct PlanModel {
  std::string name;
  std::string sha256;  // of the parameters and buffers by name, not of the file's bytes
  std::int64_t weights = 0;
  std::string note{};  // what its answers depend on besides the image (models/answers.h); empty: nothing else
};

// `verify --transfer`: the model that the widths were allocated for, with the same layers and other weights.
struct PlanSource {
  std::string model;
  std::string sha256;
};

// What no layer of the plan rounds: parameters, buffers and constants that the network multiplies by, biases included,
// and layers left alone.
struct FloatWeights {
  std::string name;                   // attribute path, or "constant 3" of the graph
  std::vector<std::int64_t> shape{};  // empty: one number
  std::string reason;                 // "bias", "used by aten::lstm", "left alone"

  [[nodiscard]] std::int64_t weights() const;
};

struct LeftInFloat {
  std::int64_t weights = 0;  // of all `tensors`
  double share = 0.0;        // of all weights of the network, 0..1
  std::vector<FloatWeights> tensors;
};

struct PlanAchieved {
  double average_bits = 0.0;
  double average_bits_with_overhead = 0.0;
  std::int64_t stored_bytes = 0;
  double compression = 0.0;          // float32 bytes of the planned layers / stored bytes
  std::int64_t network_bytes = 0;    // stored bytes and everything else that the network holds, in float; 0: not stated
  double network_compression = 0.0;  // bytes of the float network / network_bytes
  double predicted_loss_rise = 0.0;  // nats per sample
  double optimality_gap = -1.0;      // relative; < 0: the allocator does not state one, and the key is left out
  // Peak of live activations of one input; stated where they are rounded or limited.
  std::optional<std::int64_t> activation_bytes{};
  std::optional<double> latency{};  // microseconds of all layers; stated where the recipe has a table of latencies
};

struct PlanProvenance {
  std::string bitplan;
  std::string libtorch;
  std::string recipe_sha256;
};

struct Plan {
  PlanModel model;
  std::string allocator;
  std::vector<std::pair<std::string, std::string>> allocator_options;  // in file order
  std::uint64_t seed = 1;
  std::string posterior_estimator;  // empty: no posterior was used
  std::string posterior_sha256;
  QuantizerOptions quantizer;  // scheme, granularity, range and the batch-norm correction that was chosen
  Budget budget;
  PlanAchieved achieved;
  std::vector<PlanLayer> layers;             // execution order
  std::optional<LeftInFloat> left_in_float;  // empty: the plan does not state it
  std::optional<PlanSource> transferred;
  std::optional<PlanExportable> exportable;
  std::optional<PlanCalibration> calibration;
  std::optional<PlanGuard> guard;
  std::optional<PlanDrop> drop;
  std::optional<PlanLearned> learned;
  std::optional<Verification> verified;
  PlanProvenance provenance;
};

// Whether a layer of the plan reads rounded activations; a plan file states what concerns them only then.
[[nodiscard]] bool RoundsActivations(const Plan& plan);

// What the plan takes of a resource, in the unit of a limit on it; layers left alone are free. Bytes, the peak of
// activations and the latency are those that the plan states; 0 where it does not.
[[nodiscard]] double Spent(const Plan& plan, const Resource& resource);

// What is written beside bits and bytes: peak of activations and latency where they are stated, and of a plan with
// several limits the other resources too.
[[nodiscard]] std::vector<Limit> SpentOnOthers(const Plan& plan);

}  // namespace bitplan
