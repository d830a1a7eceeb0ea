#include "quantizers/compensation.h"

#include <ATen/Parallel.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/error.h"

namespace bitplan::rounding {
namespace {

constexpr double kDamping = 1e-4;     // share of the mean input power added to every input
constexpr double kMostDamping = 1e6;  // no finite moments need that much
constexpr std::int64_t kBlock = 128;

float CodeOf(float weight, float inverse, CodeRange range) {
  return std::min(std::max(std::nearbyint(weight * inverse - range.offset) + range.offset, range.low), range.high);
}

// Upper factor U of the inverse, H^-1 = U^T U. With damping it exists; where rounding in float32 says otherwise, more.
torch::Tensor InverseFactor(const torch::Tensor& moments, double shrinkage) {
  const torch::Tensor power = moments.diagonal();
  const double mean = std::max(power.mean().item<double>(), 1e-30);
  for (double damping = kDamping; damping < kMostDamping; damping *= 10.0) {
    torch::Tensor damped = moments * (1.0 - shrinkage);
    damped.diagonal().copy_(power + damping * mean);
    if (shrinkage >= 1.0) return damped.diagonal().rsqrt().diag();
    torch::Tensor factor, info;
    std::tie(factor, info) = torch::linalg_cholesky_ex(damped);
    if (info.item<int>() != 0) continue;
    std::tie(factor, info) = torch::linalg_cholesky_ex(torch::cholesky_inverse(factor), /*upper=*/true);
    if (info.item<int>() == 0) return factor.contiguous();
  }
  if (!moments.isfinite().all().item<bool>()) {
    throw Error(ErrorKind::kData, "compensated rounding: the inputs of a layer are not finite on training images");
  }
  return torch::eye(moments.size(0));  // inputs that never vary, behind a layer of 0 bits: no error matters
}

// Codes [rows, n] of one group; columns in the order of `factor`. `rows` is overwritten.
torch::Tensor CodesOf(torch::Tensor rows, const torch::Tensor& scales, CodeRange range, const torch::Tensor& factor) {
  const std::int64_t count = rows.size(0), n = rows.size(1);
  torch::Tensor codes = torch::zeros_like(rows);
  const float* const upper = factor.data_ptr<float>();
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t end = std::min(begin + kBlock, n);
    torch::Tensor errors = torch::zeros({count, end - begin});
    float* const all_errors = errors.data_ptr<float>();
    at::parallel_for(0, count, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r) {
        const float scale = scales.data_ptr<float>()[r];
        if (!IsUsableScale(scale)) continue;
        float* const w = rows.data_ptr<float>() + r * n;
        float* const code = codes.data_ptr<float>() + r * n;
        float* const row_errors = all_errors + r * (end - begin);
        const float inverse = 1.0F / scale;
        for (std::int64_t j = begin; j < end; ++j) {
          code[j] = CodeOf(w[j], inverse, range);
          const float error = (w[j] - scale * code[j]) / upper[j * n + j];
          row_errors[j - begin] = error;
          for (std::int64_t k = j + 1; k < end; ++k) w[k] -= error * upper[j * n + k];
        }
      }
    });
    if (end < n) {
      rows.slice(1, end).sub_(errors.matmul(factor.slice(0, begin, end).slice(1, end)));
    }
  }
  return codes;
}

}  // namespace

torch::Tensor RoundCompensated(const torch::Tensor& rows, const torch::Tensor& scales, CodeRange range,
                               const torch::Tensor& moments, double shrinkage) {
  const torch::NoGradGuard no_grad;
  const std::int64_t groups = moments.size(0);
  const std::int64_t per_group = rows.size(0) / groups;
  const torch::Tensor row_scales = scales.expand({rows.size(0)}).contiguous();
  torch::Tensor codes = torch::empty_like(rows), fitted = torch::empty_like(rows);
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto rows_of = [&](const torch::Tensor& tensor) {
      return tensor.slice(0, g * per_group, (g + 1) * per_group);
    };
    const torch::Tensor order = moments[g].diagonal().argsort(/*dim=*/0, /*descending=*/true);
    const torch::Tensor ordered = moments[g].index_select(0, order).index_select(1, order);
    const torch::Tensor found = CodesOf(rows_of(rows).index_select(1, order).contiguous(),
                                        rows_of(row_scales).contiguous(), range, InverseFactor(ordered, shrinkage));
    rows_of(codes).index_copy_(1, order, found);
    const torch::Tensor diagonal = rows_of(codes) * moments[g].diagonal();
    rows_of(fitted).copy_(rows_of(codes).matmul(moments[g]).lerp_(diagonal, shrinkage));  // H c
  }
  torch::Tensor above = (fitted * rows).sum(1), below = (fitted * codes).sum(1);
  if (scales.size(0) == 1) {
    above = above.sum().expand_as(row_scales);
    below = below.sum().expand_as(row_scales);
  }
  const torch::Tensor refitted = above / below;
  const torch::Tensor sound = below.gt(0.0) & refitted.isfinite() & (refitted * row_scales).gt(0.0);
  return codes * torch::where(sound, refitted, row_scales).unsqueeze(1);
}

double OutputError(const torch::Tensor& rows, const torch::Tensor& values, const torch::Tensor& moments) {
  const std::int64_t groups = moments.size(0);
  const torch::Tensor error = (values - rows).reshape({groups, rows.size(0) / groups, rows.size(1)});
  return (error.matmul(moments) * error).sum(torch::kFloat64).item<double>();
}

}  // namespace bitplan::rounding
