#include "bitplan/quantizers/quantizer.h"

#include <ATen/Parallel.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "quantizers/compensation.h"
#include "quantizers/held_scales.h"
#include "quantizers/output_errors.h"
#include "quantizers/rounding.h"

namespace bitplan {
namespace {

rounding::CodeRange RangeOf(int bits, const std::string& grid) {
  return grid == "half" ? rounding::HalfGrid(bits) : rounding::ZeroGrid(bits);
}

constexpr std::int64_t kChoosing = 4;  // one position in so many chooses between fits
constexpr int kRefinements = 2;
constexpr int kWidestByOutput = 4;  // above, every range leaves next to no error
// Scales that are tried for the outputs, in least-squares scales of the weights.
// The likeliest come first: what they reach cuts the others short.
constexpr double kFactors[] = {0.9, 1.1, 0.8, 1.25, 0.7, 1.45, 0.6, 1.7, 0.5};

// Of moments towards their diagonal, tried for compensated rounding.
constexpr double kShrinkages[] = {1.0, 0.5, 0.2, 0.05};
// What holds a target to the weights, in mean input powers; the first without other moments to choose by.
constexpr double kDampings[] = {1e-2, 1e-1, 1.0};

OutputMoments Mixed(const OutputMoments& some, const OutputMoments& others, double share) {
  const auto mix = [&](const auto& a, const auto& b) { return a * (1.0 - share) + b * share; };
  return {mix(some.inputs, others.inputs), mix(some.targets, others.targets), mix(some.power, others.power)};
}

torch::Tensor AreUsable(const torch::Tensor& scales) {  // bool [rows]; rounding::IsUsableScale
  const auto normal = [](const torch::Tensor& values) {
    return values.abs().ge(std::numeric_limits<float>::min()) & values.isfinite();
  };
  return normal(scales) & normal(scales.reciprocal());
}

void RequireKnown(const char* what, const std::string& word, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), word) == known.end()) {
    throw Error(ErrorKind::kUsage, UnknownNameMessage(what, word, known));
  }
}

}  // namespace

WeightRows::WeightRows(const torch::Tensor& weight, int output_dim, const QuantizerOptions& options,
                       QuantizerEvidence evidence)
    : shape_(weight.sizes().vec()),
      output_dim_(output_dim),
      per_channel_(options.granularity == "channel"),
      range_(options.range),
      limits_(options.limits) {
  RequireKnown("granularity", options.granularity, {"channel", "tensor"});
  RequireKnown("range", options.range, {"max", "mse", "posterior", "output", "auto"});
  rows_ = ToRows(weight.detach());
  if (options.range == "posterior" && !evidence.importance.defined()) {
    throw Error(ErrorKind::kUsage, "quantizer.range posterior needs a posterior; set posterior.estimator");
  }
  if (evidence.importance.defined()) importance_ = ToRows(evidence.importance);
  if (evidence.inputs.defined() && evidence.inputs.size(1) >= kChoosing) {
    const std::int64_t fitted = evidence.inputs.size(1) - evidence.inputs.size(1) / kChoosing;
    fitted_ = evidence.inputs.slice(1, 0, fitted);
    choosing_ = evidence.inputs.slice(1, fitted);
  }
}

torch::Tensor WeightRows::ToRows(const torch::Tensor& like_weight) const {
  const std::int64_t count = per_channel_ ? shape_[static_cast<std::size_t>(output_dim_)] : 1;
  return like_weight.movedim(output_dim_, 0).reshape({count, -1}).contiguous();
}

torch::Tensor WeightRows::FromRows(const torch::Tensor& rows) const {
  if (output_dim_ == 0) return rows.reshape(shape_);
  std::vector<std::int64_t> moved = shape_;
  moved.erase(moved.begin() + output_dim_);
  moved.insert(moved.begin(), shape_[static_cast<std::size_t>(output_dim_)]);
  return rows.reshape(moved).movedim(0, output_dim_).contiguous();
}

QuantizedWeight WeightRows::FitWeights(int bits, const LevelChoice& choice) const {
  const std::string &grid = choice.grid, &range_name = choice.range;
  const std::int64_t count = rows_.size(0);
  const std::int64_t n = rows_.size(1);
  QuantizedWeight fit{bits, grid, range_name, torch::zeros({count}), 0.0};
  std::vector<double> errors(static_cast<std::size_t>(count), 0.0);
  const float* const w = rows_.data_ptr<float>();
  const float* const importance = range_name == "posterior" ? importance_.data_ptr<float>() : nullptr;
  float* const scales = fit.scales.data_ptr<float>();
  const rounding::CodeRange range = RangeOf(std::max(bits, 1), grid);
  at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const float* const row_w = w + row * n;
      const float* row_importance = importance == nullptr ? nullptr : importance + row * n;
      // A row of which the data said nothing is kept as well as its weights say.
      if (row_importance != nullptr &&
          std::all_of(row_importance, row_importance + n, [](float v) { return v <= 0; })) {
        row_importance = nullptr;
      }
      if (bits == 1) {
        double magnitude = 0.0, total = 0.0;
        for (std::int64_t i = 0; i < n; ++i) {
          const double weight = row_importance == nullptr ? 1.0 : row_importance[i];
          magnitude += weight * std::abs(row_w[i]);
          total += weight;
        }
        const auto scale = static_cast<float>(2.0 * magnitude / total);
        scales[row] = rounding::IsUsableScale(scale) ? scale : 0.0F;
      } else if (bits > 1) {
        scales[row] = range_name == "max"
                          ? rounding::MaxScale(row_w, n, range, limits_.negative_scales)
                          : rounding::FindScale(row_w, row_importance, n, range, limits_.negative_scales).scale;
      }
      scales[row] = HeldScale(scales[row], limits_);
      double& error = errors[static_cast<std::size_t>(row)];
      if (scales[row] != 0.0F) {
        error = rounding::Measure(row_w, row_importance, n, scales[row], range).error;
      } else {  // everything becomes zero
        for (std::int64_t i = 0; i < n; ++i) {
          error += (row_importance == nullptr ? 1.0 : row_importance[i]) * row_w[i] * row_w[i];
        }
      }
    }
  });
  for (const double error : errors) fit.error += error;
  return fit;
}

torch::Tensor WeightRows::RowOutputErrors(const torch::Tensor& row_values, const torch::Tensor& inputs) const {
  const torch::Tensor errors = (row_values - rows_).reshape({inputs.size(0), -1, inputs.size(2)});
  const torch::Tensor squares = errors.matmul(inputs.transpose(1, 2)).square_().mean(2, false, torch::kFloat64);
  return squares.reshape({rows_.size(0), -1}).sum(1);
}

const OutputErrors& WeightRows::FittedErrors() const {
  if (!output_errors_) output_errors_ = std::make_shared<OutputErrors>(fitted_, rows_.reshape({-1, fitted_.size(2)}));
  return *output_errors_;
}

QuantizedWeight WeightRows::FitOutputs(int bits, const std::string& grid) const {
  QuantizedWeight best = FitWeights(bits, {grid, "mse"});
  best.range = "output";
  if (bits == 0) return best;
  const OutputErrors& measure = FittedErrors();
  const rounding::CodeRange range = RangeOf(bits, grid);
  const auto per_channel = [&](const torch::Tensor& per_scale) {
    return per_scale.reshape({-1, 1}).expand({-1, measure.channels() / rows_.size(0)}).reshape({-1}).contiguous();
  };
  const auto per_scale = [&](const torch::Tensor& values) { return values.reshape({rows_.size(0), -1}).sum(1); };
  OutputErrors::Tried tried;
  measure.Try(per_channel(best.scales), range, {}, tried);
  torch::Tensor least = per_scale(tried.errors), outputs = tried.outputs.clone();
  const auto consider = [&](const torch::Tensor& wanted) {
    const torch::Tensor scales = HeldScales(wanted, limits_);
    // A channel that shares its scale with others may be worse alone.
    const bool alone = least.size(0) == measure.channels();
    measure.Try(per_channel(scales), range, alone ? least : torch::Tensor(), tried);
    const torch::Tensor errors = per_scale(tried.errors);
    const torch::Tensor better = errors.lt(least) & AreUsable(scales) & AreHeld(scales, limits_);
    best.scales = torch::where(better, scales, best.scales);
    least = torch::where(better, errors, least);
    measure.Keep(tried, per_channel(better), outputs);
  };
  if (bits > 1) {  // the codes of one bit do not hang on the scale
    const torch::Tensor start = best.scales;
    for (const double factor : kFactors) consider(start * factor);
  }
  for (int k = 0; k < kRefinements; ++k) {  // least squares with the codes as they are
    const OutputErrors::Products products = measure.ProductsOf(outputs);
    const torch::Tensor factor = per_scale(products.with_own) / per_scale(products.with_itself);
    consider((best.scales * factor).to(torch::kFloat32));
  }
  return best;
}

QuantizedWeight WeightRows::FitGrid(int bits, const LevelChoice& choice) const {
  const bool by_outputs = choice.range == "output" || choice.range == "auto";
  if (!by_outputs) return FitWeights(bits, choice);
  if (!fitted_.defined() || bits > kWidestByOutput) return FitWeights(bits, {choice.grid, "mse"});
  QuantizedWeight fit = FitOutputs(bits, choice.grid);
  fit.error = RowOutputErrors(RowValues(fit), choosing_).sum().item<double>();
  if (choice.range == "output") return fit;
  QuantizedWeight by_weights = FitWeights(bits, {choice.grid, "mse"});
  by_weights.error = RowOutputErrors(RowValues(by_weights), choosing_).sum().item<double>();
  return fit.error < by_weights.error ? fit : by_weights;
}

QuantizedWeight WeightRows::Fit(int bits, const std::string& grid) const { return Fit(bits, {grid, range_}); }

QuantizedWeight WeightRows::Fit(int bits, const LevelChoice& choice) const {
  if (bits < 0 || bits > 8) throw Error(ErrorKind::kInternal, "quantizer: bit width " + std::to_string(bits));
  const auto& [grid, range] = choice;
  RequireKnown("grid", grid, {"auto", "zero", "half"});
  if (range == "posterior" && !importance_.defined()) {
    throw Error(ErrorKind::kUsage, "range posterior needs a posterior, and quantizer.range posterior");
  }
  std::vector<std::string> grids = GridsAt(bits, grid);
  if (grids.size() > 1) std::erase_if(grids, [&](const std::string& one) { return !Holds(limits_, bits, one); });
  if (grids.size() == 1) return FitGrid(bits, {grids.front(), range});
  QuantizedWeight zero = FitGrid(bits, {"zero", range});
  QuantizedWeight half = FitGrid(bits, {"half", range});
  return half.error < zero.error ? half : zero;
}

torch::Tensor WeightRows::RowValues(const QuantizedWeight& fit) const {
  torch::Tensor out = torch::zeros_like(rows_);
  if (fit.bits == 0) return out;
  const std::int64_t n = rows_.size(1);
  const rounding::CodeRange range = RangeOf(fit.bits, fit.grid);
  const float* const w = rows_.data_ptr<float>();
  const float* const scales = fit.scales.data_ptr<float>();
  float* const values = out.data_ptr<float>();
  at::parallel_for(0, rows_.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      rounding::Round(w + row * n, n, scales[row], range, values + row * n);
    }
  });
  return out;
}

QuantizedTensor WeightRows::Quantized(const QuantizedWeight& fit) const {
  torch::Tensor codes = torch::zeros(rows_.sizes(), torch::kInt8);
  const torch::Tensor scales = torch::where(AreUsable(fit.scales), fit.scales, torch::zeros_like(fit.scales));
  if (fit.bits == 0) return {0, 0.0F, FromRows(codes), torch::zeros_like(fit.scales), output_dim_};
  const std::int64_t n = rows_.size(1);
  const rounding::CodeRange range = RangeOf(fit.bits, fit.grid);
  const float* const w = rows_.data_ptr<float>();
  const float* const scale = scales.data_ptr<float>();
  auto* const code = codes.data_ptr<std::int8_t>();
  at::parallel_for(0, rows_.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      rounding::Encode(w + row * n, n, scale[row], range, code + row * n);
    }
  });
  return {fit.bits, range.offset, FromRows(codes), scales, output_dim_};
}

torch::Tensor WeightRows::ChannelRows(const torch::Tensor& rows, const OutputMoments& moments) const {
  return rows.reshape({-1, moments.inputs.size(1)});
}

torch::Tensor WeightRows::ScalesFor(const torch::Tensor& target, const QuantizedWeight& fit,
                                    const OutputMoments& moments) const {
  const torch::Tensor rows = target.reshape_as(rows_).contiguous();
  const torch::Tensor power = moments.inputs.diagonal(0, 1, 2)
                                  .repeat_interleave(target.size(0) / moments.inputs.size(0), 0)
                                  .reshape_as(rows_)
                                  .contiguous();
  const rounding::CodeRange range = RangeOf(fit.bits, fit.grid);
  torch::Tensor best = fit.scales.clone(), least;
  const auto consider = [&](const torch::Tensor& wanted) {
    const torch::Tensor scales = HeldScales(wanted, limits_);
    torch::Tensor values = torch::empty_like(rows);
    for (std::int64_t r = 0; r < rows.size(0); ++r) {
      rounding::Round(rows[r].data_ptr<float>(), rows.size(1), scales[r].item<float>(), range,
                      values[r].data_ptr<float>());
    }
    const torch::Tensor errors =
        rounding::RowErrors(target, ChannelRows(values, moments), moments.inputs).reshape({rows_.size(0), -1}).sum(1);
    if (!least.defined()) {
      least = errors;
      best = scales;
      return;
    }
    const torch::Tensor better = errors.lt(least) & AreUsable(scales);
    best = torch::where(better, scales, best);
    least = torch::where(better, errors, least);
  };
  const auto found = [&](bool weighted) {
    torch::Tensor scales = torch::zeros_like(fit.scales);
    at::parallel_for(0, rows.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t at = r * rows.size(1);
        scales.data_ptr<float>()[r] =
            rounding::FindScale(rows.data_ptr<float>() + at, weighted ? power.data_ptr<float>() + at : nullptr,
                                rows.size(1), range, limits_.negative_scales)
                .scale;
      }
    });
    return scales;
  };
  consider(fit.scales);
  consider(found(false));
  consider(found(true));
  return best;
}

QuantizedTensor WeightRows::RoundedTo(const torch::Tensor& target, const torch::Tensor& scales,
                                      const QuantizedWeight& fit, const OutputMoments& moments,
                                      double shrinkage) const {
  const rounding::CodeRange range = RangeOf(fit.bits, fit.grid);
  const rounding::RoundedRows rounded = rounding::RoundCompensated(target, scales, range, moments.inputs, shrinkage);
  return {fit.bits, range.offset, FromRows(rounded.codes.reshape_as(rows_)), HeldScales(rounded.scales, limits_),
          output_dim_};
}

QuantizedTensor WeightRows::Compensated(const QuantizedWeight& fit, const OutputMoments& moments,
                                        double shrinkage) const {
  if (fit.bits == 0) return Quantized(fit);
  const torch::Tensor target = Target(moments, kDampings[0]);
  return RoundedTo(target, ScalesFor(target, fit, moments), fit, moments, shrinkage);
}

QuantizedTensor WeightRows::Compensated(const QuantizedWeight& fit, const OutputMoments& moments,
                                        const OutputMoments& held_out, double held_share) const {
  QuantizedTensor best = Quantized(fit);
  if (fit.bits == 0) return best;
  double damping = kDampings[0];
  torch::Tensor target = Target(moments, damping);
  double least = OutputError(FromRows(target.reshape_as(rows_)), held_out);
  for (const double trial : kDampings) {
    if (trial == kDampings[0]) continue;
    const torch::Tensor tried = Target(moments, trial);
    const double error = OutputError(FromRows(tried.reshape_as(rows_)), held_out);
    if (!(error < least)) break;
    least = error;
    target = tried;
    damping = trial;
  }
  const torch::Tensor scales = ScalesFor(target, fit, moments);
  least = OutputError(best.Values(), held_out);
  std::optional<double> chosen;
  for (const double shrinkage : kShrinkages) {
    QuantizedTensor rounded = RoundedTo(target, scales, fit, moments, shrinkage);
    const double error = OutputError(rounded.Values(), held_out);
    if (!(error < least)) continue;
    least = error;
    best = std::move(rounded);
    chosen = shrinkage;
  }
  if (!chosen || held_share <= 0.0) return best;
  const OutputMoments all = Mixed(moments, held_out, held_share);
  const torch::Tensor all_target = Target(all, damping);
  return RoundedTo(all_target, ScalesFor(all_target, fit, all), fit, all, *chosen);
}

torch::Tensor WeightRows::Target(const OutputMoments& moments, double damping) const {
  return rounding::TargetRows(ChannelRows(rows_, moments), moments.inputs, moments.targets, damping);
}

double WeightRows::OutputError(const torch::Tensor& values, const OutputMoments& moments) const {
  const torch::Tensor rows = ChannelRows(ToRows(values), moments);
  const std::int64_t groups = moments.inputs.size(0);
  const torch::Tensor products =
      rows.reshape({groups, rows.size(0) / groups, rows.size(1)}).matmul(moments.inputs).reshape_as(rows);
  return (rows * (products - 2.0 * moments.targets)).sum(torch::kFloat64).item<double>() + moments.power;
}

OutputMoments WeightRows::OwnOutputs(const torch::Tensor& inputs) const {
  OutputMoments moments{inputs, {}, 0.0};
  const torch::Tensor rows = ChannelRows(rows_, moments);
  moments.targets = rows.reshape({inputs.size(0), -1, rows.size(1)}).matmul(inputs).reshape_as(rows);
  moments.power = (moments.targets * rows).sum(torch::kFloat64).item<double>();
  return moments;
}

std::vector<double> WeightRows::ErrorDots(const std::vector<QuantizedWeight>& fits,
                                          const torch::Tensor& gradient) const {
  const torch::Tensor rows = ToRows(gradient);
  const std::int64_t n = rows_.size(1);
  const std::size_t count = fits.size();
  const float* const w = rows_.data_ptr<float>();
  const float* const g = rows.data_ptr<float>();
  std::vector<double> sums(static_cast<std::size_t>(rows_.size(0)) * count);
  at::parallel_for(0, rows_.size(0), std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(n, 1)),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t row = begin; row < end; ++row) {
                       for (std::size_t k = 0; k < count; ++k) {
                         sums[static_cast<std::size_t>(row) * count + k] =
                             rounding::ErrorDot(w + row * n, g + row * n, n, fits[k].scales.data_ptr<float>()[row],
                                                RangeOf(std::max(fits[k].bits, 1), fits[k].grid));
                       }
                     }
                   });
  std::vector<double> totals(count, 0.0);
  for (std::size_t i = 0; i < sums.size(); ++i) totals[i % count] += sums[i];
  return totals;
}

torch::Tensor WeightRows::Range() const { return rows_.abs().amax(1); }

torch::Tensor WeightRows::RangeLike() const {
  const torch::Tensor range = Range();
  if (!per_channel_) return range.reshape(std::vector<std::int64_t>(shape_.size(), 1)).expand(shape_);
  std::vector<std::int64_t> broadcast(shape_.size(), 1);
  broadcast[static_cast<std::size_t>(output_dim_)] = range.size(0);
  return range.reshape(broadcast).expand(shape_);
}

}  // namespace bitplan
