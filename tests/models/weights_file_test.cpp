#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/models/architectures.h"
#include "bitplan/models/network.h"
#include "io/safetensors.h"
#include "models/support.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

using Weights = std::map<std::string, torch::Tensor>;

Weights WeightsOf(const torch::jit::Module& module) {
  Weights weights;
  for (const auto& entry : module.named_parameters()) weights[entry.name] = entry.value.detach().clone();
  for (const auto& entry : module.named_buffers()) weights[entry.name] = entry.value.detach().clone();
  return weights;
}

std::filesystem::path Safetensors(const testing::TemporaryFolder& folder, const Weights& weights) {
  static const std::map<torch::ScalarType, std::string> types = {{torch::kDouble, "F64"}, {torch::kFloat, "F32"},
                                                                 {torch::kHalf, "F16"},   {torch::kBFloat16, "BF16"},
                                                                 {torch::kLong, "I64"},   {torch::kByte, "U8"}};
  std::vector<safetensors::Entry> entries;
  std::string body;
  for (const auto& [name, tensor] : weights) {
    const torch::Tensor whole = tensor.contiguous();
    entries.push_back({name, types.at(tensor.scalar_type()), tensor.sizes().vec(), std::int64_t(whole.nbytes())});
    body += std::string_view(static_cast<const char*>(whole.data_ptr()), whole.nbytes());
  }
  const auto file = folder / "weights.safetensors";
  WriteFileAtomically(file, safetensors::Header(entries, {}) + body);
  return file;
}

torch::Tensor Answers(torch::jit::Module module) {
  const torch::NoGradGuard no_grad;
  return module.forward({torch::linspace(-1, 1, 2 * 784).view({2, 1, 28, 28})}).toTensor();
}

TEST_CASE("weights of a safetensors file take the place of those of a network") {
  const testing::TemporaryFolder folder;
  const torch::jit::Module trained = BuildArchitecture("lenet5", 7);
  const torch::Tensor expected = Answers(trained);
  const auto laid = [&](const Weights& weights) {
    torch::jit::Module module = BuildArchitecture("lenet5", 1);
    CHECK_FALSE(torch::allclose(Answers(module), expected));
    LayWeights(module, Safetensors(folder, weights));
    return Answers(module);
  };
  Weights weights = WeightsOf(trained);
  CHECK(torch::equal(laid(weights), expected));
  Weights wrapped, compiled, both, doubled;
  for (const auto& [name, tensor] : weights) {
    wrapped["module." + name] = tensor.to(torch::kBFloat16);
    compiled["_orig_mod." + name] = tensor;
    both["_orig_mod.module." + name] = tensor;
    doubled[name] = tensor.is_floating_point() ? tensor.to(torch::kDouble) : tensor;
  }
  CHECK(torch::allclose(laid(wrapped), expected, 0.05, 0.05));
  CHECK(torch::equal(laid(compiled), expected));
  CHECK(torch::equal(laid(both), expected));
  CHECK(torch::equal(laid(doubled), expected));
}

TEST_CASE("tied weights need one of their names, statistics of batch norms are needed, other buffers are not") {
  const testing::TemporaryFolder folder;
  torch::jit::Module a("block"), b("block"), module("tied");
  const torch::Tensor shared = torch::ones({2, 2});
  for (torch::jit::Module* block : {&a, &b}) block->register_parameter("weight", shared, false);
  module.register_module("a", a);
  module.register_module("b", b);
  module.register_buffer("mask", torch::ones({2}));
  module.register_buffer("running_mean", torch::ones({2}));
  LayWeights(module,
             Safetensors(folder, {{"b.weight", torch::full({2, 2}, 3.0)}, {"running_mean", torch::zeros({2})}}));
  CHECK(GetTensor(module, "a.weight").equal(torch::full({2, 2}, 3.0)));
  CHECK(GetTensor(module, "running_mean").equal(torch::zeros({2})));
  CHECK(GetTensor(module, "mask").equal(torch::ones({2})));
  CHECK_THROWS_WITH(LayWeights(module, Safetensors(folder, {{"a.weight", shared}, {"b.weight", 2.0 * shared}})),
                    ContainsSubstring("'a.weight' and 'b.weight' differ, and are one tensor in the model"));
  CHECK_THROWS_WITH(LayWeights(module, Safetensors(folder, {{"b.weight", shared}})),
                    ContainsSubstring("lacks 'running_mean' of the model"));
}

TEST_CASE("weights that are not those of the network are refused by name") {
  const testing::TemporaryFolder folder;
  const Weights good = WeightsOf(BuildArchitecture("lenet5", 7));
  const auto refused = [&](const std::string& why, const auto& change) {
    INFO(why);
    Weights weights = good;
    change(weights);
    torch::jit::Module module = BuildArchitecture("lenet5", 1);
    CHECK_THROWS_WITH(LayWeights(module, Safetensors(folder, weights)), ContainsSubstring(why));
  };
  refused("holds 'fc4.weight', which the model has not (nearest: 'fc",
          [](Weights& w) { w["fc4.weight"] = w["fc3.weight"]; });
  refused("lacks 'fc3.weight' of the model", [](Weights& w) { w.erase("fc3.weight"); });
  refused("'fc3.weight' has the shape [84, 10], in the model [10, 84]",
          [](Weights& w) { w["fc3.weight"] = w["fc3.weight"].t(); });
  refused("'fc3.weight' holds Byte, in the model Float; give the weights of the float network", [](Weights& w) {
    w["fc3.weight"] = torch::ones({10, 84}, torch::kByte);
  });
  refused("'fc3.bias' holds NaN", [](Weights& w) { w["fc3.bias"][2] = NAN; });
  torch::jit::Module norm("norm");
  norm.register_buffer("running_var", torch::ones({2}));
  norm.register_buffer("num_batches_tracked", torch::zeros({}, torch::kLong));
  CHECK_THROWS_WITH(LayWeights(norm, Safetensors(folder, {{"running_var", torch::tensor({1.0F, -1.0F})}})),
                    ContainsSubstring("'running_var' holds a variance below zero"));
  LayWeights(norm, Safetensors(folder, {{"running_var", torch::ones({2})}, {"num_batches_tracked", torch::ones({})}}));
  refused("infinite in float32", [](Weights& w) { w["fc3.bias"] = torch::full({10}, 1e300, torch::kDouble); });

  torch::jit::Module module = BuildArchitecture("lenet5", 1);
  CHECK_THROWS_WITH(LayWeights(module, folder / "none"), ContainsSubstring("not found"));
  for (const auto& [bytes, why] :
       std::map<std::string, std::string>{{"", "is empty"},
                                          {"{\"a\": 1}", "neither safetensors nor a state dict"},
                                          {std::string("\x80\x02\x8a\n", 4), "before 1.6"},
                                          {"PK\3\4 and no more", "cannot be read: it is cut off"}}) {
    const auto file = folder / "broken";
    WriteFileAtomically(file, bytes);
    CHECK_THROWS_WITH(LayWeights(module, file), ContainsSubstring(why));
  }
}

}  // namespace
}  // namespace bitplan
