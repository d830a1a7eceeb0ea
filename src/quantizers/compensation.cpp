#include "quantizers/compensation.h"

#include <ATen/Parallel.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "bitplan/core/error.h"

namespace bitplan::rounding {
namespace {

constexpr double kDamping = 1e-4;     // share of the mean input power added to every input
constexpr double kMostDamping = 1e6;  // no finite moments need that much
constexpr std::int64_t kBlock = 128;
constexpr int kSweeps = 4;                // of coordinate descent
constexpr std::int64_t kRowsAtOnce = 16;  // most rows that share what is loaded of the moments

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

// bool [rows]
torch::Tensor AreUsable(const torch::Tensor& scales) {
  torch::Tensor usable = torch::empty({scales.size(0)}, torch::kBool);
  std::transform(scales.data_ptr<float>(), scales.data_ptr<float>() + scales.size(0), usable.data_ptr<bool>(),
                 IsUsableScale);
  return usable;
}

// `codes`: float32 [rows, n], with their offset. A row that arithmetic has spoiled keeps its NaN, in the scale.
RoundedRows Integers(const torch::Tensor& codes, const torch::Tensor& scales, const torch::Tensor& usable, float offset,
                     bool shared) {
  const torch::Tensor sound = codes.isfinite().all(1);
  const torch::Tensor whole = torch::where((usable & sound).unsqueeze(1), codes - offset, torch::zeros_like(codes));
  torch::Tensor kept = torch::where(usable, scales, torch::zeros_like(scales));
  kept = torch::where(sound, kept, torch::full_like(kept, std::numeric_limits<float>::quiet_NaN()));
  return {whole.to(torch::kInt8), shared ? kept.slice(0, 0, 1).clone() : kept};
}

// Per row: sums over the weights of (H c) t and (H c) c, whose quotient is the scale of least error for codes c.
torch::Tensor RefittedScales(const torch::Tensor& codes, const torch::Tensor& scales, const torch::Tensor& products,
                             const torch::Tensor& rows, bool shared) {
  torch::Tensor above = (products * rows).sum(1), below = (products * codes).sum(1);
  if (shared) {
    above = above.sum().expand_as(scales);
    below = below.sum().expand_as(scales);
  }
  const torch::Tensor refitted = above / below;
  const torch::Tensor sound = below.gt(0.0) & refitted.isfinite() & (refitted * scales).gt(0.0);
  return torch::where(sound, refitted, scales);
}

// One sweep over the weights of a group's rows, those of the strongest inputs first; where a code changes, `products`
// (H c) follows. `wanted`: T H; `order`: of the columns.
void Sweep(torch::Tensor& codes, torch::Tensor& products, const torch::Tensor& scales, const torch::Tensor& wanted,
           const torch::Tensor& moments, const std::vector<std::int64_t>& order, CodeRange range) {
  const std::int64_t count = codes.size(0), n = codes.size(1);
  const float* const h = moments.data_ptr<float>();
  const std::int64_t at_once = std::clamp<std::int64_t>(count / at::get_num_threads(), 1, kRowsAtOnce);
  at::parallel_for(0, (count + at_once - 1) / at_once, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t begin = block * at_once, end = std::min(begin + at_once, count);
      for (const std::int64_t j : order) {
        const float* const row_h = h + j * n;
        if (!(row_h[j] > 0.0F)) continue;
        for (std::int64_t r = begin; r < end; ++r) {
          const float scale = scales.data_ptr<float>()[r];
          if (!IsUsableScale(scale)) continue;
          float& code = codes.data_ptr<float>()[r * n + j];
          float* const product = products.data_ptr<float>() + r * n;
          const float slope = scale * product[j] - wanted.data_ptr<float>()[r * n + j];
          const float best = CodeOf(scale * code - slope / row_h[j], 1.0F / scale, range);
          const float change = best - code;
          if (change == 0.0F || !std::isfinite(change)) continue;
          code = best;
          for (std::int64_t k = 0; k < n; ++k) product[k] += change * row_h[k];
        }
      }
    }
  });
}

}  // namespace

torch::Tensor TargetRows(const torch::Tensor& rows, const torch::Tensor& inputs, const torch::Tensor& targets,
                         double relative_damping) {
  const torch::NoGradGuard no_grad;
  const std::int64_t groups = inputs.size(0), per_group = rows.size(0) / groups;
  torch::Tensor result = rows.clone();
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto of_group = [&](const torch::Tensor& tensor) {
      return tensor.slice(0, g * per_group, (g + 1) * per_group).to(torch::kFloat64);
    };
    torch::Tensor damped = inputs[g].to(torch::kFloat64);
    const double damping = relative_damping * std::max(damped.diagonal().mean().item<double>(), 1e-30);
    damped.diagonal().add_(damping);
    torch::Tensor factor, info;
    std::tie(factor, info) = torch::linalg_cholesky_ex(damped);
    if (info.item<int>() != 0) continue;
    const torch::Tensor wanted = of_group(targets).add_(of_group(rows), damping);
    const torch::Tensor found = torch::cholesky_solve(wanted.t(), factor).t().to(torch::kFloat32);
    if (found.isfinite().all().item<bool>()) result.slice(0, g * per_group, (g + 1) * per_group).copy_(found);
  }
  return result;
}

RoundedRows RoundCompensated(const torch::Tensor& rows, const torch::Tensor& scales, CodeRange range,
                             const torch::Tensor& moments, double shrinkage) {
  const torch::NoGradGuard no_grad;
  const std::int64_t groups = moments.size(0), per_group = rows.size(0) / groups;
  const bool shared = scales.size(0) == 1;
  torch::Tensor row_scales = scales.expand({rows.size(0)}).contiguous();
  const torch::Tensor usable = AreUsable(row_scales);  // rows of other scales get no codes
  torch::Tensor codes = torch::empty_like(rows), products = torch::empty_like(rows), wanted = torch::empty_like(rows);
  std::vector<torch::Tensor> shrunk;
  std::vector<std::vector<std::int64_t>> orders;
  const auto rows_of = [&](const torch::Tensor& tensor, std::int64_t g) {
    return tensor.slice(0, g * per_group, (g + 1) * per_group);
  };
  for (std::int64_t g = 0; g < groups; ++g) {
    const torch::Tensor order = moments[g].diagonal().argsort(/*dim=*/0, /*descending=*/true);
    const torch::Tensor ordered = moments[g].index_select(0, order).index_select(1, order);
    rows_of(codes, g).index_copy_(
        1, order,
        CodesOf(rows_of(rows, g).index_select(1, order).contiguous(), rows_of(row_scales, g).contiguous(), range,
                InverseFactor(ordered, shrinkage)));
    torch::Tensor& h = shrunk.emplace_back(moments[g] * (1.0 - shrinkage));
    h.diagonal().copy_(moments[g].diagonal());
    rows_of(products, g).copy_(rows_of(codes, g).matmul(h));
    rows_of(wanted, g).copy_(rows_of(rows, g).matmul(h));
    orders.emplace_back(order.data_ptr<std::int64_t>(), order.data_ptr<std::int64_t>() + order.numel());
  }
  row_scales = RefittedScales(codes, row_scales, products, rows, shared);
  const int sweeps = shrinkage < 1.0 ? kSweeps : 0;  // without correlations there is nothing to descend
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    for (std::int64_t g = 0; g < groups; ++g) {
      torch::Tensor group_codes = rows_of(codes, g), group_products = rows_of(products, g);
      Sweep(group_codes, group_products, rows_of(row_scales, g), rows_of(wanted, g), shrunk[g], orders[g], range);
    }
    row_scales = RefittedScales(codes, row_scales, products, rows, shared);
  }
  return Integers(codes, row_scales, usable, range.offset, shared);
}

torch::Tensor RowErrors(const torch::Tensor& rows, const torch::Tensor& values, const torch::Tensor& moments) {
  const std::int64_t groups = moments.size(0);
  const torch::Tensor error = (values - rows).reshape({groups, rows.size(0) / groups, rows.size(1)});
  return (error.matmul(moments) * error).sum(2).reshape({-1});
}

}  // namespace bitplan::rounding
