#include "bitplan/quantizers/quantized_tensor.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "quantizers/rounding.h"

namespace bitplan {

torch::Tensor QuantizedTensor::Values() const {
  const std::int64_t channels = codes.size(channel_dim);
  if (scales.dim() != 1 || (scales.size(0) != channels && scales.size(0) != 1)) {
    throw Error(ErrorKind::kInternal, "quantized tensor: its scales do not fit its channels");
  }
  torch::Tensor values = torch::empty(codes.sizes(), torch::kFloat32);
  if (values.numel() == 0) return values;
  const torch::Tensor from = codes.contiguous(), of_channel = scales.expand({channels}).contiguous();
  std::int64_t inner = 1;  // neighbours in one channel
  for (std::int64_t d = channel_dim + 1; d < codes.dim(); ++d) inner *= codes.size(d);
  const std::int64_t runs = from.numel() / inner;
  const std::int8_t* const code = from.data_ptr<std::int8_t>();
  const float* const scale = of_channel.data_ptr<float>();
  float* const value = values.data_ptr<float>();
  at::parallel_for(0, runs, std::max<std::int64_t>(1, 32768 / inner), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t run = begin; run < end; ++run) {
      rounding::Decode(code + run * inner, inner, scale[run % channels], offset, value + run * inner);
    }
  });
  return values;
}

}  // namespace bitplan
