// Weights of recurrent operations, and of attention that multiplies by parts of one weight.
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <algorithm>

#include "bitplan/models/layer_inputs.h"
#include "bitplan/models/tap.h"
#include "models/layer_reads.h"
#include "models/support.h"

namespace bitplan {
namespace {

using testing::CatchError;
using testing::MakeModule;
using testing::TemporaryFolder;
using testing::Tensors;

constexpr std::int64_t kSteps = 5, kFeatures = 6, kHidden = 4;

// Weights and biases of layers that run in both directions, as nn.LSTM names them.
Tensors RecurrentTensors(std::int64_t gates, std::int64_t layers, bool reverse) {
  Tensors tensors;
  for (std::int64_t l = 0; l < layers; ++l) {
    for (const char* direction : {"", "_reverse"}) {
      if (*direction != '\0' && !reverse) continue;
      const std::string end = "_l" + std::to_string(l) + direction;
      const std::int64_t in = l == 0 ? kFeatures : kHidden * (reverse ? 2 : 1);
      tensors.emplace_back("weight_ih" + end, torch::randn({gates * kHidden, in}) * 0.4);
      tensors.emplace_back("weight_hh" + end, torch::randn({gates * kHidden, kHidden}) * 0.4);
      tensors.emplace_back("bias_ih" + end, torch::randn({gates * kHidden}) * 0.4);
      tensors.emplace_back("bias_hh" + end, torch::randn({gates * kHidden}) * 0.4);
    }
  }
  return tensors;
}

std::string ListOf(const Tensors& tensors) {
  std::string list;
  for (const auto& [name, value] : tensors) list += (list.empty() ? "self." : ", self.") + name;
  return "[" + list + "]";
}

struct RecurrentCase {
  std::string operation, kind;
  std::int64_t gates;
};

const std::vector<RecurrentCase>& RecurrentCases() {
  static const std::vector<RecurrentCase> all = {
      {"lstm", "lstm", 4}, {"gru", "gru", 3}, {"rnn_tanh", "rnn", 1}, {"rnn_relu", "rnn", 1}};
  return all;
}

// A classifier of rows [N, time, features] by the mean of what the last layer puts out.
torch::jit::Module Classifier(const RecurrentCase& of, std::int64_t layers, bool reverse) {
  torch::manual_seed(5);
  Tensors tensors = RecurrentTensors(of.gates, layers, reverse);
  const std::int64_t directions = reverse ? 2 : 1;
  const std::string list = ListOf(tensors);
  tensors.emplace_back("fc", torch::randn({3, kHidden * directions}));
  const bool cell = of.operation == "lstm";
  return MakeModule(tensors, "def forward(self, x):\n    h = torch.zeros([" + std::to_string(layers * directions) +
                                 ", x.size(0), " + std::to_string(kHidden) + "])\n    made = torch." + of.operation +
                                 "(x, " + (cell ? "[h, h]" : "h") + ", " + list + ", True, " + std::to_string(layers) +
                                 ", 0.0, False, " + (reverse ? "True" : "False") +
                                 ", True)\n    return torch.linear(made[0].mean([1]), self.fc)\n");
}

const Layer& LayerNamed(const Network& network, const std::string& name) {
  const auto found = std::find_if(network.layers.begin(), network.layers.end(),
                                  [&](const Layer& layer) { return layer.name == name; });
  REQUIRE(found != network.layers.end());
  return *found;
}

std::string FloatReason(const Network& network, const std::string& parameter) {
  for (const FloatParameter& tensor : network.left_in_float) {
    if (tensor.parameter == parameter) return tensor.reason;
  }
  return "planned";
}

}  // namespace

TEST_CASE("every weight matrix of a recurrent operation is a layer, with the products of all time steps") {
  for (const RecurrentCase& of : RecurrentCases()) {
    INFO(of.operation);
    const Network network = DescribeNetwork(Classifier(of, 2, true), "recurrent", {kSteps, kFeatures});
    REQUIRE(network.layers.size() == 9);
    for (const Layer& layer : network.layers) {
      INFO(layer.name);
      if (layer.name == "fc") continue;
      CHECK(layer.kind == of.kind);
      CHECK(layer.is_recurrent());
      CHECK(layer.output_dim == 0);
      CHECK(layer.output_channels() == of.gates * kHidden);
      CHECK(layer.uses == 1);
      CHECK(layer.macs == kSteps * layer.weights());
      CHECK(layer.output_values == kSteps * of.gates * kHidden);
      CHECK(layer.bias.empty());
      // Only what multiplies the operation's own input can be gathered.
      CHECK(HasKnownInputs(layer) == (layer.name == "weight_ih_l0" || layer.name == "weight_ih_l0_reverse"));
      CHECK_FALSE(layer.rounds_input());
      CHECK_FALSE(layer.puts_out_products());
    }
    CHECK(network.left_in_float.size() == 8);
    for (const FloatParameter& tensor : network.left_in_float) CHECK(tensor.reason == "bias");
  }
}

TEST_CASE("packed sequences and cells count every time step that they run") {
  torch::manual_seed(5);
  Tensors tensors = RecurrentTensors(4, 1, false);
  tensors.emplace_back("fc", torch::randn({3, kHidden}));
  const auto packed = MakeModule(tensors, R"(
def forward(self, x):
    h = torch.zeros([1, x.size(0), 4])
    lengths = torch.full([x.size(0)], 3)
    data, sizes = torch._pack_padded_sequence(x, lengths, True)
    made = torch.lstm(data, sizes, [h, h], [self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0],
                      True, 1, 0.0, False, False)
    return torch.linear(made[1][0], self.fc)
)");
  const Network of_packed = DescribeNetwork(packed, "packed", {kSteps, kFeatures});
  CHECK(LayerNamed(of_packed, "weight_ih_l0").macs == 3 * 4 * kHidden * kFeatures);
  CHECK(LayerNamed(of_packed, "weight_hh_l0").macs == 3 * 4 * kHidden * kHidden);
  CHECK(HasKnownInputs(LayerNamed(of_packed, "weight_ih_l0")));
  const auto cell = MakeModule(tensors, R"(
def forward(self, x):
    h = torch.zeros([x.size(0), 4])
    c = torch.zeros([x.size(0), 4])
    for t in range(x.size(1)):
        h, c = torch.lstm_cell(x[:, t], [h, c], self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
    return torch.linear(h, self.fc)
)");
  const Network of_cell = DescribeNetwork(cell, "cell", {kSteps, kFeatures});
  CHECK(LayerNamed(of_cell, "weight_ih_l0").kind == "lstm");
  CHECK(LayerNamed(of_cell, "weight_ih_l0").uses == kSteps);
  CHECK(LayerNamed(of_cell, "weight_hh_l0").macs == kSteps * 4 * kHidden * kHidden);
  CHECK_FALSE(HasKnownInputs(LayerNamed(of_cell, "weight_ih_l0")));
}

TEST_CASE("a tap hands on the input of a recurrent operation for each of its weights, and all that it puts out") {
  const Network network = DescribeNetwork(Classifier(RecurrentCases()[0], 1, true), "lstm", {kSteps, kFeatures});
  const torch::Tensor images = torch::randn({7, kSteps, kFeatures});
  std::vector<int> inputs(network.layers.size()), outputs(network.layers.size());
  {
    const Tap tap(network, network.module,
                  {.on_layer_input =
                       [&](std::size_t l, const torch::Tensor& input) {
                         ++inputs[l];
                         if (network.layers[l].is_recurrent()) CHECK(input.is_same(images));
                       },
                   .on_layer_output = [&](std::size_t l, const torch::Tensor&) { ++outputs[l]; }});
    (void)RunForward(network.module, images);
  }
  CHECK(inputs == std::vector<int>{1, 1, 1, 1, 1});
  CHECK(outputs == std::vector<int>{3, 3, 3, 3, 1});  // every step, last hidden and cell state
  const auto samples = SampleLayerInputs(network, images, 7 * kSteps, 1);
  CHECK(samples[0].sizes() == c10::IntArrayRef({1, 7 * kSteps, kFeatures}));
  CHECK_FALSE(samples[1].defined());
}

TEST_CASE("weights that a module reads from a list of its own parameters are planned and reached") {
  const auto make = [](bool changed) {
    torch::manual_seed(5);
    Tensors tensors = RecurrentTensors(4, 1, false);
    std::vector<torch::Tensor> list;
    for (const auto& [name, value] : tensors) list.push_back(value);
    if (changed) list[1] = list[1].clone();  // a weight that is no attribute
    tensors.emplace_back("fc", torch::randn({3, kHidden}));
    torch::jit::Module module = MakeModule(tensors, "");
    module.register_attribute("_flat_weights", c10::ListType::ofTensors(), list);
    module.define(R"(
def forward(self, x):
    h = torch.zeros([1, x.size(0), 4])
    made = torch.lstm(x, [h, h], self._flat_weights, True, 1, 0.0, False, False, True)
    return torch.linear(made[0].mean([1]), self.fc)
)");
    return module;
  };
  const TemporaryFolder folder;
  const auto loaded = [&](bool changed) {
    make(changed).save((folder / "model.pt").string());
    return LoadModule(folder / "model.pt");
  };
  torch::jit::Module module = loaded(false);
  const torch::Tensor images = torch::randn({3, kSteps, kFeatures});
  const torch::Tensor before = make(false).forward({images}).toTensor();
  CHECK(torch::equal(RunForward(module, images), before));
  const Network network = DescribeNetwork(module, "list", {kSteps, kFeatures});
  CHECK(network.layers.size() == 3);
  for (const char* name : {"weight_ih_l0", "weight_hh_l0"}) {
    torch::jit::Module clone = CloneModule(module);
    SetTensor(clone, name, torch::zeros_like(GetTensor(clone, name)));
    CHECK_FALSE(torch::allclose(RunForward(clone, images), before));
  }
  CHECK(module.attr("_flat_weights").toTensorVector().empty());  // no second copy goes into files
  const Network partly = DescribeNetwork(loaded(true), "list", {kSteps, kFeatures});
  CHECK(partly.layers.size() == 1);
  CHECK_THAT(FloatReason(partly, "weight_ih_l0"), ContainsSubstring("also held as _flat_weights[0]"));
  CHECK_THAT(FloatReason(partly, "_flat_weights[1]"), ContainsSubstring("inside a list"));
}

TEST_CASE("attention over two tensors, which multiplies by parts of one in-projection, makes one layer of it") {
  torch::manual_seed(7);
  const auto module = MakeModule({{"packed", torch::randn({12, 4})},
                                  {"bias", torch::randn({12})},
                                  {"embed", torch::randn({4, 6})},
                                  {"fc", torch::randn({3, 4})}},
                                 R"(
def forward(self, x):
    h = torch.linear(x, self.embed)
    first, others = self.packed.split([4, 8])
    q = torch.linear(h[:, :2], first, self.bias[:4])
    k, v = torch.linear(h, others, self.bias[4:]).chunk(2, -1)
    return torch.linear((torch.softmax(q @ k.transpose(1, 2), -1) @ v).mean([1]), self.fc)
)");
  const Network network = DescribeNetwork(module, "attention", {kSteps, kFeatures});
  REQUIRE(network.layers.size() == 3);
  const Layer& packed = LayerNamed(network, "packed");
  CHECK(packed.kind == "linear");
  CHECK(packed.output_dim == 0);
  CHECK(packed.uses == 2);
  CHECK(packed.macs == 2 * 4 * 4 + kSteps * 8 * 4);
  CHECK(packed.output_values == 2 * 4 + kSteps * 8);
  CHECK(packed.bias.empty());
  CHECK_FALSE(HasKnownInputs(packed));
  CHECK_FALSE(packed.puts_out_products());
  // Both parts are seen by a tap, and what they read is rounded by one quantizer.
  int inputs = 0;
  {
    const Tap tap(network, network.module,
                  {.on_layer_input = [&](std::size_t l, const torch::Tensor&) { inputs += l == 1 ? 1 : 0; }});
    (void)RunForward(network.module, torch::randn({2, kSteps, kFeatures}));
  }
  CHECK(inputs == 2);
  torch::jit::Module clone = CloneModule(network.module);
  torch::jit::Module own = clone.clone();
  auto& graph = *own.get_method("forward").graph();
  const auto reads = FindLayerReads(graph, own, network);
  CHECK(std::count_if(reads.begin(), reads.end(), [](const LayerRead& read) { return read.layer == 1; }) == 2);
}

TEST_CASE("a block of rows or columns of a weight, transposed or not, keeps the dimension of its outputs") {
  torch::manual_seed(7);
  const auto described = [](const std::string& line) {
    return DescribeNetwork(
        MakeModule({{"w", torch::randn({6, 6})}, {"fc", torch::randn({3, 4})}},
                   "def forward(self, x):\n    h = " + line + "\n    return torch.linear(h, self.fc)\n"),
        "blocks", {4});
  };
  CHECK(LayerNamed(described("torch.linear(x, self.w[1:5, 2:6])"), "w").output_dim == 0);
  CHECK(LayerNamed(described("torch.matmul(x, self.w[1:5, 2:6])"), "w").output_dim == 1);
  CHECK(LayerNamed(described("torch.matmul(x, self.w[1:5, 2:6].t())"), "w").output_dim == 0);
  CHECK(LayerNamed(described("torch.linear(x, self.w[1:5, 2:6])"), "w").macs == 16);
  CHECK_FALSE(HasKnownInputs(LayerNamed(described("torch.linear(x, self.w[1:5, 2:6])"), "w")));
  for (const char* line :
       {"torch.linear(x, self.w.view([9, 4])[:4])", "torch.linear(x, self.w[1:5, ::2].repeat([1, 2])[:, :4])"}) {
    INFO(line);
    CHECK(FloatReason(described(line), "w") != "planned");
  }
}

}  // namespace bitplan
