// `bitplan compare RECIPE --sensitivity`: how well every sensitivity metric predicts what plans really cost: random
// plans with nearest rounding, or with `near` plans worth choosing from, rounded and corrected as they are deployed.
//
// Where allocate.activation_bits has several widths, a random plan rounds the tensors that layers read too, each to one
// of them, and a prediction is the sum of the metric's table of weights and its table of activations.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/core/problem.h"
#include "bitplan/core/progress.h"
#include "bitplan/pipeline/options.h"

namespace bitplan::pipeline {

struct RankOptions {
  RecipeOptions recipe;
  int plans = 0;                     // 0: 200 random ones, 20 near every budget
  int samples = 2000;                // training images on which the plans are measured
  double limit = 1.0;                // nats; plans that cost more are drawn again
  std::vector<std::string> metrics;  // "posterior", "posterior-svi", "hawq", ...; empty: all
  // Average bits: at each of them `plans` different plans within 5 % of it, measured on the calibration images. One in
  // turn is the exact solution of every metric's table, its rises each times exp(t z) with z standard normal and t
  // drawn from [0, 1]: no metric is judged by its own plans alone. Error(kInfeasible) where there are less than three,
  // Error(kUsage) where activations have several widths.
  std::vector<double> near;
};

struct RankRow {
  std::string metric;
  double spearman_divergence = 0.0;  // rank correlation of prediction and measured KL(float || quantized)
  double spearman_loss = 0.0;        // the same with the measured rise of the labelled loss
  double seconds = 0.0;              // to measure the table; 0 when it was there already
  std::vector<double> predicted{};   // [plans] nats per sample
};

// Plans that take about as many bits.
struct NearBudget {
  double budget = 0.0;                 // average bits
  std::vector<std::vector<int>> bits;  // [plans][layers]
  std::vector<double> loss_rise;       // [plans] measured, nats per sample, over the float network
  std::vector<double> accuracy;        // [plans] shares
  std::vector<RankRow> rows;           // spearman_loss and predictions of every metric
};

struct RankReport {
  std::string model;
  std::int64_t drawn = 0;              // plans that had to be drawn
  std::vector<std::vector<int>> bits;  // [plans][layers]
  // [plans][layers], 32 where a layer's input stays in float; empty where activations do.
  std::vector<std::vector<int>> activation_bits;
  std::vector<double> divergence;  // [plans] measured, nats per sample
  std::vector<double> loss_rise;   // [plans]
  std::vector<RankRow> rows;
  std::vector<NearBudget> near;    // instead of the above, where it was asked for
  std::vector<std::string> notes;  // figures that can hardly be right, and what they usually mean
};

[[nodiscard]] RankReport RankMetrics(const RankOptions& options, ProgressSink& progress);

}  // namespace bitplan::pipeline
