// ONNX files as modules. The answers of all operators are compared with ONNX Runtime in tests/python/onnx_import.py;
// here is what holds without it: names, batches, refusals, damaged files.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>

#include "bitplan/io/files.h"
#include "bitplan/models/stated_shape.h"
#include "exporters/onnx_model.h"
#include "models/support.h"

namespace bitplan::testing {
namespace {

namespace fs = std::filesystem;
using onnx_file::Attribute;
using onnx_file::Initializer;
using onnx_file::Model;
using onnx_file::Operation;
using onnx_file::Type;
using Ints = std::vector<std::int64_t>;

Initializer Floats(const std::string& name, const torch::Tensor& value) {
  const torch::Tensor flat = value.contiguous();
  return {name, Type::kFloat, value.sizes().vec(),
          std::string(static_cast<const char*>(flat.data_ptr()), flat.nbytes())};
}

Initializer Integers(const std::string& name, const Ints& values) {
  std::string bytes(values.size() * sizeof(std::int64_t), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return {name, Type::kInt64, {static_cast<std::int64_t>(values.size())}, bytes};
}

Operation Node(const std::string& type, const std::vector<std::string>& inputs, const std::string& output,
               const std::vector<Attribute>& attributes = {}) {
  return {type, inputs, {output}, attributes, "node of " + output};
}

// Of images [n, 2, 6, 6], to `output`.
Model Images(const std::string& output = "y") {
  Model model;
  model.name = "graph";
  model.opset = 13;
  model.ir_version = 8;
  model.inputs = {{"x", Type::kFloat, {std::string("n"), std::int64_t{2}, std::int64_t{6}, std::int64_t{6}}}};
  model.outputs = {{output, Type::kFloat, {std::string("n"), std::int64_t{3}}}};
  return model;
}

// conv - batch norm - relu - flatten - linear, with these names of weights.
Model ConvNet(const std::string& conv = "features.0.weight", const std::string& fc = "head/fc.weight") {
  torch::manual_seed(2);
  Model model = Images();
  model.initializers = {Floats(conv, torch::randn({4, 2, 3, 3})), Floats("features.0.bias", torch::randn({4})),
                        Floats("norm.scale", torch::rand({4})),   Floats("norm.shift", torch::randn({4})),
                        Floats("norm.mean", torch::randn({4})),   Floats("norm.var", torch::rand({4}) + 0.5),
                        Floats(fc, torch::randn({3, 64})),        Floats("head.bias", torch::randn({3}))};
  model.operations = {Node("Conv", {"x", conv, "features.0.bias"}, "a"),
                      Node("BatchNormalization", {"a", "norm.scale", "norm.shift", "norm.mean", "norm.var"}, "b"),
                      Node("Relu", {"b"}, "c"), Node("Flatten", {"c"}, "d"),
                      Node("Gemm", {"d", fc, "head.bias"}, "y", {{"transB", std::int64_t{1}}})};
  return model;
}

fs::path Written(const TemporaryFolder& folder, const std::string& bytes) {
  const fs::path file = folder / "model.onnx";
  std::ofstream(file, std::ios::binary) << bytes;
  return file;
}

torch::jit::Module Loaded(const Model& model) {
  const TemporaryFolder folder;
  return LoadModule(Written(folder, onnx_file::Serialized(model)));
}

std::string RefusalOf(const Model& model) {
  const TemporaryFolder folder;
  const fs::path file = Written(folder, onnx_file::Serialized(model));
  const Caught caught = CatchError([&] { (void)LoadModule(file); });
  CHECK(caught.kind == ErrorKind::kData);
  CHECK(caught.message.find('\n') == std::string::npos);
  return caught.message;
}

std::vector<std::string> LayerNames(const torch::jit::Module& module) {
  std::vector<std::string> names;
  for (const Layer& layer : DescribeNetwork(module, "test", {2, 6, 6}).layers) names.push_back(layer.name);
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("an ONNX network has the layers, biases and batch norms of the file under its names") {
  const Network network = DescribeNetwork(Loaded(ConvNet()), "test", {2, 6, 6});
  REQUIRE(network.layers.size() == 2);
  CHECK(network.layers[0].name == "features.0");
  CHECK(network.layers[0].bias == "features.0.bias");
  CHECK(network.layers[0].macs == 4 * 18 * 16);
  CHECK(network.layers[1].name == "head.fc");
  CHECK(network.layers[1].bias == "head.bias");
  REQUIRE(network.batch_norms.size() == 1);
  CHECK(network.batch_norms[0].running_mean == "norm.mean");
  CHECK(network.left_in_float.size() == 6);
}

TEST_CASE("an ONNX network answers the same after it was saved as TorchScript and loaded again") {
  const torch::jit::Module module = Loaded(ConvNet());
  const TemporaryFolder folder;
  SaveModule(module, folder / "saved.pt");
  const torch::jit::Module again = LoadModule(folder / "saved.pt");
  const torch::Tensor images = torch::randn({5, 2, 6, 6});
  CHECK(RunForward(again, images).equal(RunForward(module, images)));
  CHECK(ModelHash(again) == ModelHash(module));
}

TEST_CASE("names of an ONNX file that no attribute may have stay recognisable and apart") {
  CHECK(LayerNames(Loaded(ConvNet("Conv 1:weight", "class.weight"))) == Names{"Conv_1_weight", "class_"});
  CHECK(LayerNames(Loaded(ConvNet("W", "W.b"))) == Names{"W", "W_b_2"});
  CHECK(LayerNames(Loaded(ConvNet("a b", "a_b"))) == Names{"a_b", "a_b_2"});
  CHECK(LayerNames(Loaded(ConvNet("\xff\xfe", "forward"))).size() == 2);
}

TEST_CASE("a product with a weight and the sum with its bias are one layer whose weight stays as the file has it") {
  torch::manual_seed(3);
  Model model = Images();
  const torch::Tensor weight = torch::randn({72, 3}), bias = torch::randn({3}), images = torch::randn({4, 2, 6, 6});
  model.initializers = {Floats("onnx::MatMul_7", weight), Floats("fc.bias", bias)};
  model.operations = {Node("Flatten", {"x"}, "a"), Node("MatMul", {"a", "onnx::MatMul_7"}, "b"),
                      Node("Add", {"fc.bias", "b"}, "y")};
  const torch::jit::Module module = Loaded(model);
  const Network network = DescribeNetwork(module, "test", {2, 6, 6});
  REQUIRE(network.layers.size() == 1);
  CHECK(network.layers[0].name == "fc");
  CHECK(network.layers[0].bias == "fc.bias");
  CHECK(network.layers[0].shape == Ints{72, 3});
  CHECK(network.layers[0].output_dim == 1);
  CHECK(RunForward(module, images).allclose(images.flatten(1).matmul(weight) + bias, 1e-5, 1e-5));
}

TEST_CASE("a last softmax is left out, so that answers are logits, and one in between stays") {
  Model bare = ConvNet(), soft = ConvNet();
  soft.operations.push_back(Node("Softmax", {"y"}, "p", {{"axis", std::int64_t{-1}}}));
  soft.outputs[0].name = "p";
  const torch::Tensor images = torch::randn({3, 2, 6, 6});
  const torch::Tensor logits = RunForward(Loaded(bare), images);
  CHECK(RunForward(Loaded(soft), images).equal(logits));
  soft.operations.push_back(Node("Neg", {"p"}, "q"));
  soft.outputs[0].name = "q";
  CHECK(RunForward(Loaded(soft), images).allclose(-logits.softmax(1)));
}

TEST_CASE("an ONNX file made for one image answers batches, each image as if it were alone") {
  Model model = ConvNet();
  model.inputs[0].dims[0] = std::int64_t{1};
  model.initializers.push_back(Integers("shape", {1, 64}));
  model.operations[3] = Node("Reshape", {"c", "shape"}, "d");
  const torch::Tensor images = torch::randn({7, 2, 6, 6});
  CHECK(RunForward(Loaded(model), images).allclose(RunForward(Loaded(ConvNet()), images), 1e-5, 1e-5));
  // Numbers of several images in one sum.
  model.operations[3] = Node("CumSum", {"c", "axis"}, "e");
  model.operations.insert(model.operations.begin() + 4, Node("Reshape", {"e", "shape"}, "d"));
  model.initializers.push_back({"axis", Type::kInt64, {}, std::string(8, '\0')});
  const std::string message = RefusalOf(model);
  CHECK(message.find("made for batches of 1") != std::string::npos);
  CHECK(message.find("dynamic_axes") != std::string::npos);
}

TEST_CASE("the shape of an input is what the ONNX file states, and nothing where it leaves a size open") {
  const TemporaryFolder folder;
  Model model = ConvNet();
  CHECK(StatedInputShape(Written(folder, onnx_file::Serialized(model))) == Ints{2, 6, 6});
  model.inputs[0].dims[2] = std::string("height");
  CHECK(StatedInputShape(Written(folder, onnx_file::Serialized(model))).empty());
  CHECK(StatedInputShape("model.pt").empty());
}

TEST_CASE("sizes that an ONNX file leaves open stay open where nothing depends on them") {
  Model model = Images();
  model.inputs[0].dims[2] = std::string("height");
  model.inputs[0].dims[3] = std::string("width");
  model.initializers = {Floats("w", torch::randn({3, 2, 3, 3})), Integers("s", {0, -1})};
  model.operations = {Node("Conv", {"x", "w"}, "a"), Node("GlobalAveragePool", {"a"}, "b"),
                      Node("Reshape", {"b", "s"}, "y")};
  const torch::jit::Module module = Loaded(model);
  CHECK(RunForward(module, torch::randn({2, 2, 5, 9})).sizes() == Ints{2, 3});
  CHECK(RunForward(module, torch::randn({4, 2, 40, 17})).sizes() == Ints{4, 3});
}

TEST_CASE("what an ONNX file has that bitplan does not translate is one line with node, operator and set") {
  const auto with_last = [](const Operation& operation) {
    Model model = ConvNet();
    model.operations.push_back(operation);
    model.outputs[0].name = operation.outputs.at(0);
    return RefusalOf(model);
  };
  const auto says = [](const std::string& message, const Names& words) {
    CAPTURE(message);
    for (const std::string& word : words) CHECK(message.find(word) != std::string::npos);
  };
  says(with_last(Node("NonMaxSuppression", {"y"}, "z")), {"node of z", "NonMaxSuppression", "opset 13"});
  says(with_last(Node("Relu", {"y"}, "z", {{"speed", std::int64_t{1}}})), {"node of z", "Relu", "'speed'"});
  says(with_last(Node("Relu", {"nothing"}, "z")), {"'nothing'", "Relu"});
  says(with_last(Node("Relu", {"z"}, "z")), {"'z'", "nothing before it makes"});  // a circle
  says(with_last(Node("Softmax", {"y"}, "z", {{"axis", std::int64_t{4}}})), {"axis 4"});
  says(with_last(Node("Dropout", {"y", "", "x"}, "z")), {"Dropout", "input 3"});
  Model model = ConvNet();
  model.opset = 99;
  says(RefusalOf(model), {"operator set 99", "7 to 25"});
  model = ConvNet();
  model.inputs.push_back({"mask", Type::kFloat, {std::int64_t{3}}});
  says(RefusalOf(model), {"2 inputs", "x, mask"});
  model = ConvNet();
  model.initializers[0].dims[0] = 5;
  says(RefusalOf(model), {"'features.0.weight'", "bytes"});
  model = ConvNet();
  model.initializers[6] = Floats(model.initializers[6].name, torch::randn({3, 60}));
  says(RefusalOf(model), {"node of y", "Gemm"});
  model = ConvNet();
  model.inputs[0].dims.clear();
  CHECK(RefusalOf(model).size() < 400);
}

TEST_CASE("an ONNX file cannot make bitplan reserve more than a network needs") {
  const auto refused = [](const std::vector<Operation>& operations, const std::vector<Initializer>& tensors) {
    Model model = Images();
    model.operations = operations;
    model.initializers = tensors;
    const std::string message = RefusalOf(model);
    CAPTURE(message);
    CHECK((message.find("numbers") != std::string::npos || message.find("impossible") != std::string::npos));
  };
  const Ints huge = {1 << 20, 1 << 20, 1, 1};
  refused({Node("ConstantOfShape", {"s"}, "y")}, {Integers("s", huge)});
  refused({Node("Expand", {"w", "s"}, "a"), Node("Add", {"x", "a"}, "y")},
          {Integers("s", huge), Floats("w", torch::ones({1, 1, 1, 1}))});
  refused({Node("Tile", {"x", "s"}, "y")}, {Integers("s", huge)});
  refused({Node("Pad", {"x", "s"}, "y")}, {Integers("s", {0, 0, 0, 0, 0, 0, 1 << 20, 1 << 20})});
  refused({Node("Conv", {"x", "w"}, "y", {{"pads", Ints{1 << 19, 1 << 19, 1 << 19, 1 << 19}}})},
          {Floats("w", torch::ones({1, 2, 1, 1}))});
  refused({Node("ConvTranspose", {"x", "w"}, "y", {{"strides", Ints{1 << 19, 1 << 19}}})},
          {Floats("w", torch::ones({2, 1, 1, 1}))});
  refused({Node("MatMul", {"a", "b"}, "y")},
          {Floats("a", torch::ones({1 << 14, 1})), Floats("b", torch::ones({1, 1 << 14}))});
  Model model = Images();
  model.inputs[0].dims[3] = std::int64_t{1} << 40;
  model.operations = {Node("Relu", {"x"}, "y")};
  CHECK(RefusalOf(model).find("numbers") != std::string::npos);
}

TEST_CASE("a damaged ONNX file is one line of bad data, or a network, and never anything else") {
  const TemporaryFolder folder;
  const std::string whole = onnx_file::Serialized(ConvNet());
  const auto tried = [&](const std::string& bytes) {
    try {
      (void)LoadModule(Written(folder, bytes));
    } catch (const Error& error) {
      CAPTURE(error.what());
      CHECK(error.kind() == ErrorKind::kData);
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      CHECK(std::string(error.what()).size() < 1000);
    }
  };
  std::mt19937 random(5);
  for (std::size_t length = 0; length < whole.size(); length += 1 + length / 40) tried(whole.substr(0, length));
  // Most of the file are numbers of weights; flip bits of everything else.
  for (int i = 0; i < 700; ++i) {
    std::string bytes = whole;
    const std::size_t at = i % 2 == 0 ? random() % 700 : random() % bytes.size();
    bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ (1U << random() % 8));
    tried(bytes);
  }
  for (int i = 0; i < 100; ++i) {
    std::string bytes(random() % 300, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    tried(bytes);
  }
  tried(std::string(1 << 16, '\x0a'));
  CHECK(CatchError([&] { (void)LoadModule(Written(folder, "PK\x03\x04 an archive")); }).message.find("TorchScript") !=
        std::string::npos);
}

TEST_CASE("weights beside an ONNX file are read, and no file outside its folder") {
  const TemporaryFolder folder;
  const torch::Tensor weight = torch::randn({3, 72});
  const auto with = [&](const std::string& location, int offset, int length) {
    // Field by field: the writer of the exporter has no such tensors.
    const auto text = [](int field, const std::string& value) {
      return std::string(1, static_cast<char>(field << 3 | 2)) + static_cast<char>(value.size()) + value;
    };
    const auto entry = [&](const std::string& key, const std::string& value) {
      return text(13, text(1, key) + text(2, value));
    };
    const std::string tensor = "\x08\x03\x08\x48\x10\x01" + text(8, "w") + entry("location", location) +
                               entry("offset", std::to_string(offset)) + entry("length", std::to_string(length)) +
                               "\x70\x01";
    Model model = Images();
    model.operations = {Node("Flatten", {"x"}, "a"), Node("Gemm", {"a", "w"}, "y", {{"transB", std::int64_t{1}}})};
    // A placeholder of the same length in its place.
    const std::string in_graph = text(5, tensor);
    Initializer placeholder{"p", Type::kUint8, {}, ""};
    placeholder.bytes.assign(in_graph.size() - text(5, text(8, "p") + "\x10\x02" + text(9, "")).size(), 'p');
    placeholder.dims.clear();
    model.initializers = {placeholder};
    std::string bytes = onnx_file::Serialized(model);
    const std::size_t at = bytes.find(text(5, "\x10\x02" + text(8, "p") + text(9, placeholder.bytes)));
    REQUIRE(at != std::string::npos);
    return bytes.replace(at, in_graph.size(), in_graph);
  };
  std::string numbers(static_cast<const char*>(weight.data_ptr()), weight.nbytes());
  std::ofstream(folder / "model.onnx.data", std::ios::binary) << "1234" << numbers;
  const auto message = [&](const std::string& location, int offset, int length) {
    return CatchError([&] { (void)LoadModule(Written(folder, with(location, offset, length))); }).message;
  };
  const int all = static_cast<int>(numbers.size());
  const torch::Tensor images = torch::randn({2, 2, 6, 6});
  const torch::jit::Module module = LoadModule(Written(folder, with("model.onnx.data", 4, all)));
  CHECK(RunForward(module, images).allclose(images.flatten(1).matmul(weight.t()), 1e-5, 1e-5));
  CHECK(message("../model.onnx.data", 4, all).find("not in the model's folder") != std::string::npos);
  CHECK(message("/etc/passwd", 0, all).find("not in the model's folder") != std::string::npos);
  CHECK(message("other.data", 4, all).find("missing") != std::string::npos);
  CHECK(message("model.onnx.data", 5, all).find("beyond the end") != std::string::npos);
  CHECK(message("model.onnx.data", 4, all - 4).find("bytes") != std::string::npos);
  fs::create_symlink("/etc/passwd", folder / "link.data");
  CHECK(message("link.data", 0, all).find("leads out") != std::string::npos);
}

}  // namespace bitplan::testing
