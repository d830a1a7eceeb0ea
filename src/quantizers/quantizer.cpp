#include "bitplan/quantizers/quantizer.h"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <cmath>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "quantizers/compensation.h"
#include "quantizers/rounding.h"

namespace bitplan {
namespace {

rounding::CodeRange RangeOf(int bits, const std::string& grid) {
  return grid == "half" ? rounding::HalfGrid(bits) : rounding::ZeroGrid(bits);
}

void RequireKnown(const char* what, const std::string& word, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), word) == known.end()) {
    throw Error(ErrorKind::kUsage, UnknownNameMessage(what, word, known));
  }
}

}  // namespace

WeightRows::WeightRows(const torch::Tensor& weight, int output_dim, const QuantizerOptions& options,
                       const torch::Tensor& importance)
    : shape_(weight.sizes().vec()),
      output_dim_(output_dim),
      per_channel_(options.granularity == "channel"),
      by_max_(options.range == "max") {
  RequireKnown("granularity", options.granularity, {"channel", "tensor"});
  RequireKnown("range", options.range, {"max", "mse", "posterior"});
  rows_ = ToRows(weight.detach());
  if (options.range == "posterior") {
    if (!importance.defined()) {
      throw Error(ErrorKind::kUsage, "quantizer.range posterior needs a posterior; set posterior.estimator");
    }
    importance_ = ToRows(importance);
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

QuantizedWeight WeightRows::FitGrid(int bits, const std::string& grid) const {
  const std::int64_t count = rows_.size(0);
  const std::int64_t n = rows_.size(1);
  QuantizedWeight fit{bits, grid, torch::zeros({count}), 0.0};
  std::vector<double> errors(static_cast<std::size_t>(count), 0.0);
  const float* const w = rows_.data_ptr<float>();
  const float* const importance = importance_.defined() ? importance_.data_ptr<float>() : nullptr;
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
      if (bits == 0) {
        for (std::int64_t i = 0; i < n; ++i) {
          errors[static_cast<std::size_t>(row)] +=
              (row_importance == nullptr ? 1.0 : row_importance[i]) * row_w[i] * row_w[i];
        }
      } else if (bits == 1) {
        double magnitude = 0.0, total = 0.0;
        for (std::int64_t i = 0; i < n; ++i) {
          const double weight = row_importance == nullptr ? 1.0 : row_importance[i];
          magnitude += weight * std::abs(row_w[i]);
          total += weight;
        }
        scales[row] = static_cast<float>(2.0 * magnitude / total);
      } else if (by_max_) {
        scales[row] = rounding::MaxScale(row_w, n, range);
      } else {
        scales[row] = rounding::FindScale(row_w, row_importance, n, range).scale;
      }
      if (scales[row] != 0.0F) {
        errors[static_cast<std::size_t>(row)] = rounding::Measure(row_w, row_importance, n, scales[row], range).error;
      }
    }
  });
  for (const double error : errors) fit.error += error;
  return fit;
}

QuantizedWeight WeightRows::Fit(int bits, const std::string& grid) const {
  if (bits < 0 || bits > 8) throw Error(ErrorKind::kInternal, "quantizer: bit width " + std::to_string(bits));
  RequireKnown("grid", grid, {"auto", "zero", "half"});
  if (bits == 0) return FitGrid(bits, "zero");
  if (bits == 1) return FitGrid(bits, "half");
  if (grid != "auto") return FitGrid(bits, grid);
  QuantizedWeight zero = FitGrid(bits, "zero");
  if (bits > 3) return zero;
  QuantizedWeight half = FitGrid(bits, "half");
  return half.error < zero.error ? half : zero;
}

torch::Tensor WeightRows::Values(const QuantizedWeight& fit) const {
  torch::Tensor out = torch::zeros_like(rows_);
  if (fit.bits > 0) {
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
  }
  return FromRows(out);
}

torch::Tensor WeightRows::CompensatedValues(const QuantizedWeight& fit, const torch::Tensor& moments,
                                            double shrinkage) const {
  const torch::Tensor rows = rows_.reshape({-1, moments.size(1)});
  const torch::Tensor values =
      fit.bits == 0 ? torch::zeros_like(rows)
                    : rounding::RoundCompensated(rows, fit.scales, RangeOf(fit.bits, fit.grid), moments, shrinkage);
  return FromRows(values.reshape_as(rows_));
}

double WeightRows::OutputError(const torch::Tensor& values, const torch::Tensor& moments) const {
  const std::vector<std::int64_t> shape = {-1, moments.size(1)};
  return rounding::OutputError(rows_.reshape(shape), ToRows(values).reshape(shape), moments);
}

double WeightRows::ErrorDot(const QuantizedWeight& fit, const torch::Tensor& gradient) const {
  const torch::Tensor rows = ToRows(gradient);
  const std::int64_t n = rows_.size(1);
  const rounding::CodeRange range = RangeOf(std::max(fit.bits, 1), fit.grid);
  const float* const w = rows_.data_ptr<float>();
  const float* const g = rows.data_ptr<float>();
  const float* const scales = fit.scales.data_ptr<float>();
  std::vector<double> sums(static_cast<std::size_t>(rows_.size(0)), 0.0);
  at::parallel_for(0, rows_.size(0), std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(n, 1)),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t row = begin; row < end; ++row) {
                       sums[static_cast<std::size_t>(row)] =
                           rounding::ErrorDot(w + row * n, g + row * n, n, scales[row], range);
                     }
                   });
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
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
