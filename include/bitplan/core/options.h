// The options of a run as plain values: what a recipe says, without YAML. Every section is one struct; the room that
// does the work takes its section. Defaults are stated here; names, units, ranges and help texts in the option table
// behind io/recipe.h, from which checks and documentation come.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/core/budget.h"
#include "bitplan/core/consumer_limits.h"

namespace bitplan {

struct ModelOptions {
  std::string architecture;       // built-in architecture, or
  std::string file;               // a TorchScript or ONNX file, relative to the data folder or the recipe
  std::string weights;            // of either of them: a safetensors file or a state dict, found like `file`
  bool answers_may_vary = false;  // whether a network may answer an image by its batch or by chance (models/answers.h)
  // Ranges of channels are evened out between layers (models/equalize.h): the share of activations in the factors, the
  // rest is that of weights; 0: not at all.
  double equalize = 0.0;

  // Whether the weights are there, and nothing is trained.
  [[nodiscard]] bool is_trained() const { return !file.empty() || !weights.empty(); }
};

struct DataOptions {
  std::string name;                        // a name of DatasetSources: mnist, dirty-mnist, npy, ...
  std::vector<double> normalize_mean;      // per channel, of pixels scaled to 0..1
  std::vector<double> normalize_std;       // > 0
  int calibration = 5000;                  // images that choices are made on, by seed; a fifth where it is over half
  std::string calibration_from = "train";  // train, test: the split that they are taken from
  double noise = 0.0;                      // standard deviation of Gaussian noise on the normalized images, drawn once
  // name: npy only; files relative to the data folder or the recipe
  std::string train_images, train_labels, test_images, test_labels;
  std::string calibration_images, calibration_labels;  // empty: taken from a split
  std::string layout = "images";                       // images: [N, H, W] becomes [N, 1, H, W]; as-is
  std::string task;                                    // npy, csv: a name of Likelihoods(); empty: classification
  // name: folder and csv; relative to the data folder or the recipe
  std::string train, test;
  int train_at_most = 0;             // folder: images of the training split, as evenly of every class as it has; 0: all
  int resize = 0;                    // folder: pixels of the shorter side; 0: as it is
  int crop = 0;                      // folder: pixels of a side of the square from the middle; 0: all
  std::string channels = "rgb";      // folder: rgb, bgr, gray
  std::string label;                 // csv: the column; empty: the last; "none": no labels
  std::vector<std::string> columns;  // csv: the inputs; empty: all but the label
};

struct TrainOptions {
  int epochs = 8;
  std::string optimizer = "adam";  // adam, sgd (Nesterov momentum 0.9)
  double learning_rate = 0.002;    // peak of a one-cycle schedule
  double weight_decay = 0.0;       // decoupled from adam's moments; added to the gradient for sgd
  double dropout = 0.0;            // probability, before every linear layer but the first of a network
  int batch = 128;
  std::vector<std::string> augment;  // shift, flip, pad-and-crop
};

struct PosteriorOptions {
  std::string estimator = "laplace";  // laplace, svi
  int samples = 8192;                 // training images used by the estimate
  int batch = 64;                     // images per forward and backward pass
  double prior_sigma = 0.0;           // standard deviation of the prior; 0: root mean square of the layer's weights
  int epochs = 1;                     // svi: passes over `samples`
  double learning_rate = 0.01;        // svi
  bool free_mean = false;             // svi: let the means move
};

struct SensitivityOptions {
  std::string metric = "posterior";  // posterior, measured
  int samples = 2048;                // training images for the coherence of rounding errors, or for `measured`
  bool coherence = true;             // posterior: measure how far the rounding errors of a layer act together
};

struct QuantizerOptions {
  std::string scheme = "symmetric";
  std::string granularity = "channel";   // channel, tensor
  std::string range = "output";          // max, mse, posterior, output, auto
  std::string grid = "auto";             // at 2 and 3 bits: auto, zero (a level at zero), half (levels at odd halves)
  std::string rounding = "compensated";  // nearest, compensated
  // Which corrections ranges, rounding and the predictive metric count on: off, batch-norm, outputs, both, auto (those
  // that are not off).
  std::string centring = "auto";
  std::string batch_norm = "auto";          // off, re-estimate, transfer, auto
  std::string output_correction = "auto";   // off, fit, auto: of layers that feed no batch norm
  std::string activation_range = "output";  // max, percentile, mse, output: ends of the levels of activations
  int range_sweeps = 0;                     // over all of them, to refine them after weights are rounded; 0: none
  // float, rounded: both terms of a sum (ptq/activations.h), where activations are rounded.
  std::string activation_sums = "float";
  int correction_samples = 4096;  // unlabelled training images for rounding and both corrections
  // Learned rounding (ptq/learn_rounding.h): minibatches, 0 for none; images to draw them from; steps in levels.
  int learned_steps = 0;
  int learned_samples = 16384;
  double learned_rate = 0.006;
  std::string exportable;   // a name of Exporters(): what it holds is all that a plan may choose; empty: all
  ConsumerLimits limits{};  // what that means for the layers at hand; follows from `exportable`
};

// QuantizerOptions::centring without its "auto": the corrections that will take the mean error of outputs away.
struct Centring {
  bool batch_norm = true;
  bool outputs = true;
};
[[nodiscard]] Centring CentringOf(const QuantizerOptions& options);
[[nodiscard]] const char* CentringName(const Centring& centring);  // off, batch-norm, outputs, both

// Layers whose names match the pattern get this width. In a pattern `*` stands for any text, `?` for one character.
struct Pin {
  std::string pattern;
  int bits = 8;  // 0..8; the sensitivity table must have it, allocate.bits need not
};

struct RandomBitsOptions {
  std::string estimator = "gumbel-softmax";  // gumbel-softmax, score-function
  int steps = 300;                           // minibatches
  int samples = 4;                           // score-function: plans per minibatch, >= 2
  double learning_rate = 0.01;               // of Adam, in typical gaps between the best two widths of a unit
  double data_weight = 1.0;                  // of the loss on minibatches
  double posterior_weight = 1.0;             // of the sensitivity table
};

struct AllocateOptions {
  std::string allocator = "quantile-inform";
  Budget budget;
  // The smallest plan of which it is 95 % sure that it loses at most so many points of accuracy; empty: not asked for.
  std::optional<double> drop;
  std::string smallest;  // the resource that this goes by, and curves; empty: average_bits, or bops where activations
                         // have several widths
  std::vector<int> bits = {1, 2, 3, 4, 5, 6, 7, 8};  // allowed widths, each 0..8
  bool bits_are_asked = false;                       // whether the recipe names them, or they are the default
  std::vector<int> activation_bits = {};             // of the layers' inputs, each 2..8 or 16; empty: float
  double quantile = 0.9;                         // quantile-inform: which quantile of a layer's scores speaks for it
  std::string mode = "information";              // quantile-inform: information, rank
  bool guard = true;                             // never a plan predicted worse than uniform at the same budget
  int draws = 4;                                 // networks from the posterior that the confidence of widths counts on
  std::vector<Pin> pins;                         // of several that match a layer the last one counts
  std::vector<std::vector<std::string>> groups;  // patterns of layers that share one width
  std::vector<std::string> exclude;              // patterns of layers left in float, outside the budget
  std::string latency;                           // table of latencies, relative to the data folder or the recipe
  RandomBitsOptions random_bits;
};

struct VerifyOptions {
  std::string split = "test";  // test, calibration
  int batch = 256;
  int bootstrap = 10000;  // resamples of the paired interval
};

struct CompareOptions {
  std::vector<std::string> allocators;                            // empty: all; uniform is always among them
  std::vector<double> budgets = {1.25, 1.5, 2.0, 2.5, 3.0, 4.0};  // average bits per weight
  // "W4A4", ...: plans of weights and activations at the bit operations of one pair for all, in the place of `budgets`.
  std::vector<std::string> pairs;
  int calibration_seeds = 0;  // repetitions with other calibration data; 0: as many as the network's cost allows
  int seeds = 3;              // of allocators whose answer depends on the seed, where there is one calibration seed
  double tolerance = 0.01;    // accuracy that a plan recommended over all budgets may cost, a share
};

// `bitplan curve`.
struct CurveOptions {
  int points = 8;       // budgets that are measured, evenly spaced in their logarithm
  bool uniform = true;  // measure one width for all layers at each budget too
};

// Of a Bayesian network whose variational parameters get their own widths (`bitplan bayes`).
struct BayesPlanOptions {
  // Per variational parameter, means and standard deviations alike; 0: no such plan. Drawn weights and activations get
  // sample_bits and activation_bits, 4 where these are 0.
  double average_bits = 0.0;
  double accuracy_drop = 1.0;  // most that the plan may lose on calibration images, share of labels
  double drift = 1.0;          // most that mean aleatoric or epistemic uncertainty may change there, relative
};

struct BayesOptions {
  std::string from;                 // a trained TorchScript model whose weights are the first means; empty: model
  std::string activation = "relu";  // in the place of every relu: relu, clipped-relu, hard-tanh, signed-levels
  int epochs = 12;                  // of the network in float
  double learning_rate = 0.002;     // peak of a one-cycle schedule
  int batch = 128;
  double prior_sigma = 0.0;  // 0: fitted to every layer (type II maximum likelihood)
  double first_sigma = 0.1;  // standard deviations at first, as a share of the layer's root mean square weight
  int draws = 32;            // of the weights, for every prediction
  int seeds = 3;             // networks trained and quantized
  std::vector<std::string> schemes = {"vpq", "spq", "jq"};
  std::vector<int> bits = {8, 4, 3, 2};
  std::vector<std::string> stages = {"trained", "fine-tuned"};              // trained, fine-tuned, scratch
  std::vector<std::string> sigma_scales = {"log"};                          // log, linear
  int mean_bits = 0, sigma_bits = 0, sample_bits = 0, activation_bits = 0;  // 0: as `bits`; 32: float
  std::string fine_tune = "reference";                                      // reference, draws, bound
  int fine_tune_epochs = 2;
  double fine_tune_learning_rate = 0.0005;
  bool control = true;           // the float network fine-tuned as the others are; where `stages` has fine-tuned
  std::string clean, ambiguous;  // test splits that are measured; `clean` empty: data.name
  std::vector<std::string> out_of_distribution;  // likewise, each by itself
  BayesPlanOptions plan;
};

struct Recipe {
  std::string name;
  ModelOptions model;
  DataOptions data;
  TrainOptions train;
  PosteriorOptions posterior;
  SensitivityOptions sensitivity;
  QuantizerOptions quantizer;
  AllocateOptions allocate;
  VerifyOptions verify;
  CompareOptions compare;
  CurveOptions curve;
  BayesOptions bayes;
  std::uint64_t seed = 1;
  // Of what calibration data give: the training images that posterior, table, draws and corrections see, and the
  // calibration split where it is taken off the training images of a model from a file. Empty: `seed`.
  std::optional<std::uint64_t> calibration_seed;

  [[nodiscard]] std::uint64_t CalibrationSeed() const { return calibration_seed.value_or(seed); }
};

}  // namespace bitplan
