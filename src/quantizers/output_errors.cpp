#include "quantizers/output_errors.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <vector>

namespace bitplan {
namespace {

constexpr std::int64_t kRowsOfFactor = 256;  // added up before channels are given up
constexpr double kWorthMoving = 0.8;         // share of the channels left below which the others are put together

// sum_i a_i b_i: float sums of few values, double sums across.
double DotOf(const float* a, const float* b, std::int64_t count) {
  constexpr std::int64_t kLanes = 16;
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t k = 0; k < kLanes; ++k) lanes[k] += a[i + k] * b[i + k];
  }
  double sum = 0.0;
  for (const float lane : lanes) sum += lane;
  for (; i < count; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

}  // namespace

// Between two products of matrices there are plain loops. They take next to no time, and the threads of the products
// still hold the processors: an operation with threads of its own would wait for them longer than it runs.

OutputErrors::OutputErrors(const torch::Tensor& inputs, const torch::Tensor& rows) : rows_(rows.contiguous()) {
  const torch::NoGradGuard no_grad;
  torch::Tensor ordered = inputs;
  if (inputs.size(0) == 1) {
    const torch::Tensor order = inputs[0].square().sum(0).argsort(/*dim=*/0, /*descending=*/true);
    ordered = inputs.index_select(2, order);
    rows_ = rows.index_select(1, order);
  }
  const double positions = static_cast<double>(inputs.size(1));
  factor_ = std::get<1>(torch::linalg_qr(ordered, "r")).div(std::sqrt(positions)).contiguous();
  reference_ = rows_.reshape({factor_.size(0), -1, rows_.size(1)}).matmul(factor_.transpose(1, 2));
  reference_ = reference_.reshape({rows_.size(0), factor_.size(1)}).contiguous();
}

void OutputErrors::WriteChanges(const torch::Tensor& scales, rounding::CodeRange range, torch::Tensor& changes) const {
  if (!changes.defined()) changes = torch::empty_like(rows_);
  const torch::Tensor each = scales.contiguous();
  const std::int64_t n = rows_.size(1);
  const float* const w = rows_.data_ptr<float>();
  const float* const scale = each.data_ptr<float>();
  float* const change = changes.data_ptr<float>();
  for (std::int64_t row = 0; row < rows_.size(0); ++row) {
    float* const out = change + row * n;
    rounding::Round(w + row * n, n, scale[row], range, out);
    for (std::int64_t i = 0; i < n; ++i) out[i] -= w[row * n + i];
  }
}

void OutputErrors::Try(const torch::Tensor& scales, rounding::CodeRange range, const torch::Tensor& bound,
                       Tried& tried) const {
  const torch::NoGradGuard no_grad;
  WriteChanges(scales, range, tried.changes);
  if (factor_.size(0) == 1) return TryOneGroup(bound, tried);
  tried.outputs = tried.changes.reshape({factor_.size(0), -1, rows_.size(1)}).matmul(factor_.transpose(1, 2));
  tried.outputs = tried.outputs.reshape({rows_.size(0), factor_.size(1)});
  tried.errors = tried.outputs.square().sum(1, /*keepdim=*/false, torch::kFloat64);
}

void OutputErrors::TryOneGroup(const torch::Tensor& bound, Tried& tried) const {
  const torch::Tensor factor = factor_[0];
  const std::int64_t count = factor.size(0), channels = rows_.size(0), n = rows_.size(1);
  tried.errors = torch::zeros({channels}, torch::kFloat64);
  if (!tried.outputs.defined()) tried.outputs = torch::empty({channels, count});
  if (!tried.products.defined()) tried.products = torch::empty({channels * std::min(kRowsOfFactor, count)});
  auto* const errors = tried.errors.data_ptr<double>();
  auto* const outputs = tried.outputs.data_ptr<float>();
  auto* const changes = tried.changes.data_ptr<float>();
  const double* const bounds = bound.defined() ? bound.data_ptr<double>() : nullptr;
  std::vector<std::int64_t> left(static_cast<std::size_t>(channels));  // the channels in the first rows of `changes`
  std::iota(left.begin(), left.end(), std::int64_t{0});
  for (std::int64_t begin = 0; begin < count && !left.empty(); begin += kRowsOfFactor) {
    const std::int64_t end = std::min(begin + kRowsOfFactor, count), width = end - begin;
    const auto rows = static_cast<std::int64_t>(left.size());
    torch::Tensor products = tried.products.slice(0, 0, rows * width).view({rows, width});
    torch::mm_out(products, tried.changes.slice(0, 0, rows).slice(1, begin),
                  factor.slice(0, begin, end).slice(1, begin).t());
    const float* product = products.data_ptr<float>();
    for (const std::int64_t channel : left) {
      errors[channel] += DotOf(product, product, width);
      std::copy(product, product + width, outputs + channel * count + begin);
      product += width;
    }
    if (bounds == nullptr || end == count) continue;
    std::vector<std::int64_t> kept;  // places in `left`
    for (std::size_t i = 0; i < left.size(); ++i) {
      if (errors[left[i]] < bounds[left[i]]) kept.push_back(static_cast<std::int64_t>(i));
    }
    if (!kept.empty() && static_cast<double>(kept.size()) > kWorthMoving * static_cast<double>(left.size())) continue;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const float* const from = changes + kept[i] * n;
      if (kept[i] > static_cast<std::int64_t>(i)) std::copy(from, from + n, changes + static_cast<std::int64_t>(i) * n);
      left[i] = left[static_cast<std::size_t>(kept[i])];
    }
    left.resize(kept.size());
  }
}

void OutputErrors::Keep(const Tried& tried, const torch::Tensor& channels, torch::Tensor& outputs) const {
  const std::int64_t count = outputs.size(1);
  const bool* const chosen = channels.data_ptr<bool>();
  const float* const from = tried.outputs.data_ptr<float>();
  float* const to = outputs.data_ptr<float>();
  for (std::int64_t c = 0; c < outputs.size(0); ++c) {
    if (chosen[c]) std::copy(from + c * count, from + (c + 1) * count, to + c * count);
  }
}

OutputErrors::Products OutputErrors::ProductsOf(const torch::Tensor& outputs) const {
  const std::int64_t channels = outputs.size(0), count = outputs.size(1);
  Products products{torch::empty({channels}, torch::kFloat64), torch::empty({channels}, torch::kFloat64)};
  const float* const change = outputs.data_ptr<float>();
  const float* const own = reference_.data_ptr<float>();
  std::vector<float> quantized(static_cast<std::size_t>(count));
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t i = 0; i < count; ++i) {
      quantized[static_cast<std::size_t>(i)] = change[c * count + i] + own[c * count + i];
    }
    products.with_own.data_ptr<double>()[c] = DotOf(quantized.data(), own + c * count, count);
    products.with_itself.data_ptr<double>()[c] = DotOf(quantized.data(), quantized.data(), count);
  }
  return products;
}

}  // namespace bitplan
