// Layers with weights. A weight keeps the layout that it has in the module wherever ONNX has an operator for it;
// otherwise its integers are stored transposed.
#include <cmath>
#include <limits>

#include "exporters/onnx_operators.h"

namespace bitplan::onnx_operators {
namespace {

Numbers Windows(const torch::Tensor& weight) {  // [kh, kw] of [out, in, kh, kw]
  return {weight.sizes().begin() + 2, weight.sizes().end()};
}

struct ConvForm {
  Numbers stride, dilation, begin, end;  // padding before and after, one each dimension
  Numbers output_padding;                // of a transposed convolution
  std::int64_t groups = 1;
  bool transposed = false;
};

Names Convolution(const OnnxCall& call, const ConvForm& form) {
  const torch::Tensor weight = call.Tensor("weight");
  if (call.Dims("input") != weight.dim()) call.Refuse("has an input without a batch");
  Numbers pads = form.begin;
  pads.insert(pads.end(), form.end.begin(), form.end.end());
  std::vector<onnx_file::Attribute> attributes = {{"kernel_shape", Windows(weight)},
                                                  {"strides", form.stride},
                                                  {"dilations", form.dilation},
                                                  {"pads", pads},
                                                  {"group", form.groups}};
  if (form.transposed) attributes.push_back({"output_padding", form.output_padding});
  Names inputs = {call.Name("input"), call.Name("weight")};
  if (call.Has("bias")) inputs.push_back(call.Name("bias"));
  return {call.graph().Add(form.transposed ? "ConvTranspose" : "Conv", inputs, attributes)};
}

// conv1d, conv2d, conv3d. The padding may be a word.
Names PlainConvolution(const OnnxCall& call) {
  const torch::Tensor weight = call.Tensor("weight");
  const Numbers windows = Windows(weight);
  const std::size_t dims = windows.size();
  ConvForm form{.stride = call.Ints("stride", dims),
                .dilation = call.Ints("dilation", dims),
                .begin = Numbers(dims, 0),
                .end = Numbers(dims, 0),
                .output_padding = {},
                .groups = call.Int("groups"),
                .transposed = false};
  if (!call.Value("padding").isString()) {
    form.begin = form.end = call.Ints("padding", dims);
  } else if (call.Word("padding") == "same") {
    for (std::size_t d = 0; d < dims; ++d) {
      const std::int64_t all = form.dilation[d] * (windows[d] - 1);
      form.begin[d] = all / 2;
      form.end[d] = all - all / 2;
    }
  }
  return Convolution(call, form);
}

Names TransposedConvolution(const OnnxCall& call) {
  const std::size_t dims = Windows(call.Tensor("weight")).size();
  const Numbers padding = call.Ints("padding", dims);
  return Convolution(call, {.stride = call.Ints("stride", dims),
                            .dilation = call.Ints("dilation", dims),
                            .begin = padding,
                            .end = padding,
                            .output_padding = call.Ints("output_padding", dims),
                            .groups = call.Int("groups"),
                            .transposed = true});
}

Names AnyConvolution(const OnnxCall& call) {
  return call.Flag("transposed") ? TransposedConvolution(call) : PlainConvolution(call);
}

// x @ rows^T (+ bias), rows [out, in], x of two or more dimensions. As Gemm in two dimensions: MatMul right behind
// DequantizeLinear lets ONNX Runtime round activations to 8 bits.
std::string TimesRows(const OnnxCall& call, const std::string& x, const Extents& x_sizes, Names others) {
  OnnxGraph& graph = call.graph();
  const bool flat = x_sizes.size() == 2;
  others.insert(others.begin(), flat ? x : graph.Add("Reshape", {x, graph.Ints({-1, x_sizes.back().first})}));
  const std::string product = graph.Add("Gemm", others, {{"transB", std::int64_t{1}}});
  return flat ? product : graph.Reshape(product, call.OutSizes());
}

Names Linear(const OnnxCall& call) {
  Names others = {call.Name("weight")};
  if (call.Has("bias")) others.push_back(call.Name("bias"));
  return {TimesRows(call, call.Name("input"), call.SizesOf("input"), others)};
}

Names MatMul(const OnnxCall& call) {
  const bool by_constant = !call.Depends(1) && call.Dims(1) == 2 && call.Dims(0) >= 2;
  if (!by_constant) return {call.graph().Add("MatMul", {call.Name(0), call.Name(1)})};
  return {TimesRows(call, call.Name(0), call.SizesOf(0), {call.NameOf(call.Tensor(1).t())})};
}

// beta * self + alpha * (a @ b)
Names ProductAndSum(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  const auto times = [&](const std::string& name, double factor) {
    return factor == 1.0 ? name : call.graph().Add("Mul", {name, call.graph().Number(factor, type)});
  };
  const std::string product = times(call.graph().Add("MatMul", {call.Name(1), call.Name(2)}), call.Real("alpha", 1.0));
  const double beta = call.Real("beta", 1.0);
  if (beta == 0.0) return {product};
  return {call.graph().Add("Add", {product, times(call.Name(0), beta)})};
}

Names AddMm(const OnnxCall& call) {
  const bool constant = !call.Depends(2);
  return {call.graph().Add("Gemm",
                           {call.Name(1), constant ? call.NameOf(call.Tensor(2).t()) : call.Name(2), call.Name(0)},
                           {{"alpha", static_cast<float>(call.Real("alpha", 1.0))},
                            {"beta", static_cast<float>(call.Real("beta", 1.0))},
                            {"transB", std::int64_t{constant ? 1 : 0}}})};
}

Names Einsum(const OnnxCall& call) {
  return {call.graph().Add("Einsum", call.NamesIn("tensors"), {{"equation", call.Word("equation")}})};
}

Names Embedding(const OnnxCall& call) {
  return {call.graph().Add("Gather", {call.Name("weight"), call.Name("indices")})};
}

// softmax(q k^T / sqrt(d) + mask) v, by its parts.
Names Attention(const OnnxCall& call) {
  OnnxGraph& graph = call.graph();
  const torch::Tensor query = call.Tensor("query");
  const auto type = query.scalar_type();
  if (call.Real("dropout_p", 0.0) != 0.0) call.Refuse("drops out at random");
  if (call.Flag("enable_gqa")) call.Refuse("shares keys among heads");
  const double scale = call.Real("scale", 1.0 / std::sqrt(static_cast<double>(query.size(-1))));
  Numbers swapped(static_cast<std::size_t>(query.dim()));
  for (std::size_t d = 0; d < swapped.size(); ++d) swapped[d] = static_cast<std::int64_t>(d);
  std::swap(swapped[swapped.size() - 1], swapped[swapped.size() - 2]);
  const std::string keys = graph.Add("Transpose", {call.Name("key")}, {{"perm", swapped}});
  const std::string scaled = graph.Add("Mul", {call.Name("query"), graph.Number(scale, type)});
  std::string scores = graph.Add("MatMul", {scaled, keys});
  const auto mask_with = [&](const std::string& allowed) {
    const std::string never = graph.Number(-std::numeric_limits<double>::infinity(), type);
    scores = graph.Add("Where", {allowed, scores, never});
  };
  if (call.Has("attn_mask")) {
    if (call.Tensor("attn_mask").scalar_type() == torch::kBool) {
      mask_with(call.Name("attn_mask"));
    } else {
      scores = graph.Add("Add", {scores, call.Name("attn_mask")});
    }
  }
  if (call.Flag("is_causal")) {
    mask_with(graph.Constant(torch::ones({query.size(-2), call.Tensor("key").size(-2)}, torch::kBool).tril()));
  }
  const std::string weights = graph.Add("Softmax", {scores}, {{"axis", std::int64_t{-1}}});
  return {graph.Add("MatMul", {weights, call.Name("value")}), weights};
}

}  // namespace

void AddLayers(OnnxTranslators& all) {
  for (const char* name : {"conv1d", "conv2d", "conv3d"}) all[name] = PlainConvolution;
  for (const char* name : {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
    all[name] = TransposedConvolution;
  for (const char* name : {"convolution", "_convolution", "_convolution_mode"}) all[name] = AnyConvolution;
  for (const char* name : {"matmul", "mm", "bmm", "mv", "dot"}) all[name] = MatMul;
  for (const char* name : {"baddbmm", "addmv"}) all[name] = ProductAndSum;
  for (const char* name : {"scaled_dot_product_attention", "_scaled_dot_product_attention"}) all[name] = Attention;
  all["linear"] = Linear;
  all["addmm"] = AddMm;
  all["einsum"] = Einsum;
  all["embedding"] = Embedding;
}

}  // namespace bitplan::onnx_operators
