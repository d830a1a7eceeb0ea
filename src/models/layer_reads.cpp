#include "models/layer_reads.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>

#include "bitplan/core/error.h"
#include "models/inlined_graph.h"

namespace bitplan {
namespace {

struct Places {
  std::size_t input, weight;
};

std::optional<Places> PlacesOf(const torch::jit::Node& node) {
  static const std::map<std::string, Places> known = {{"aten::conv1d", {0, 1}},
                                                      {"aten::conv2d", {0, 1}},
                                                      {"aten::conv3d", {0, 1}},
                                                      {"aten::convolution", {0, 1}},
                                                      {"aten::_convolution", {0, 1}},
                                                      {"aten::_convolution_mode", {0, 1}},
                                                      {"aten::conv_transpose1d", {0, 1}},
                                                      {"aten::conv_transpose2d", {0, 1}},
                                                      {"aten::conv_transpose3d", {0, 1}},
                                                      {"aten::linear", {0, 1}},
                                                      {"aten::addmm", {1, 2}},
                                                      {"aten::matmul", {0, 1}},
                                                      {"aten::mm", {0, 1}}};
  const auto found = known.find(node.kind().toQualString());
  if (found == known.end() || found->second.weight >= node.inputs().size()) return std::nullopt;
  return found->second;
}

// Lists of views of some of the numbers.
bool Splits(const torch::jit::Node& node) {
  static const std::set<std::string> kinds = {"aten::split", "aten::split_with_sizes", "aten::chunk",
                                              "aten::tensor_split"};
  return kinds.contains(node.kind().toQualString());
}

// Views of the same numbers, or of some of them.
bool HandsOn(const torch::jit::Node& node) {
  const bool takes_part = node.kind() == c10::prim::ListUnpack || node.kind() == c10::aten::__getitem__;
  if (takes_part) return Splits(*node.input(0)->node());
  if (Splits(node)) return true;
  static const std::set<std::string> kinds = {"aten::slice",
                                              "aten::narrow",
                                              "aten::t",
                                              "aten::transpose",
                                              "aten::detach",
                                              "aten::numpy_T",
                                              "aten::contiguous",
                                              "aten::to",
                                              "aten::type_as",
                                              "prim::unchecked_cast",
                                              "prim::data",
                                              "aten::permute",
                                              "aten::_unwrap_optional",
                                              "prim::unchecked_unwrap_optional"};
  return kinds.contains(node.kind().toQualString());
}

// The attribute path that a value is read from; empty for anything else.
std::string PathOf(const torch::jit::Value* value, const torch::jit::Value* self) {
  while (HandsOn(*value->node())) value = value->node()->input(0);
  std::string path;
  while (value != self) {
    const torch::jit::Node& node = *value->node();
    if (node.kind() != c10::prim::GetAttr) return "";
    path = node.s(c10::attr::name) + (path.empty() ? "" : "." + path);
    value = node.input(0);
  }
  return path;
}

}  // namespace

std::vector<LayerRead> FindLayerReads(torch::jit::Graph& graph, const torch::jit::Module& module,
                                      const Network& network) {
  std::unordered_map<const void*, std::size_t> layers;
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    layers[GetTensor(module, network.layers[l].parameter).data_ptr()] = l;
  }
  std::vector<LayerRead> reads;
  VisitNodes(graph.block(), [&](torch::jit::Node* node) {
    const auto places = PlacesOf(*node);
    if (!places) return;
    const std::string path = PathOf(node->input(places->weight), graph.inputs()[0]);
    if (path.empty()) return;
    const auto found = layers.find(GetTensor(module, path).data_ptr());
    if (found != layers.end()) reads.push_back({found->second, node, places->input});
  });
  return reads;
}

std::vector<bool> LayersRead(const Network& network) {
  const auto graph = InlinedGraph(network.module);
  std::vector<bool> found(network.layers.size(), false);
  for (const LayerRead& read : FindLayerReads(*graph, network.module, network)) found[read.layer] = true;
  return found;
}

void RequirePlace(const Network& network, const std::vector<LayerRead>& reads, std::size_t layer) {
  if (std::any_of(reads.begin(), reads.end(), [&](const LayerRead& read) { return read.layer == layer; })) return;
  throw Error(ErrorKind::kData, "the input of layer " + network.layers[layer].name +
                                    " cannot be rounded: its weight is changed on the way to the operation, or "
                                    "hidden behind an interface; leave the layer out (allocate.exclude)");
}

torch::jit::Node* NodeBehind(torch::jit::Value* value) {
  torch::jit::Node* const made_by = value->node();
  return made_by->kind() == c10::prim::Param ? *made_by->owningBlock()->nodes().begin() : made_by->next();
}

ReadValues ValuesOf(const std::vector<LayerRead>& reads) {
  ReadValues values;
  for (const LayerRead& read : reads) {
    torch::jit::Value* const value = read.node->input(read.input);
    const auto known = std::find_if(values.begin(), values.end(), [&](const auto& one) { return one.first == value; });
    if (known == values.end()) {
      values.emplace_back(value, std::vector<std::size_t>{read.layer});
    } else {
      known->second.push_back(read.layer);
    }
  }
  return values;
}

std::vector<std::size_t> FirstReaders(const ReadValues& values, std::size_t layers) {
  std::vector<std::size_t> first(layers);
  for (std::size_t l = 0; l < layers; ++l) first[l] = l;
  const auto root = [&](std::size_t l) {
    while (first[l] != l) l = first[l];
    return l;
  };
  for (const auto& [value, readers] : values) {
    for (const std::size_t reader : readers) {
      const std::size_t a = root(readers.front()), b = root(reader);
      first[std::max(a, b)] = std::min(a, b);
    }
  }
  for (std::size_t l = 0; l < layers; ++l) first[l] = root(l);
  return first;
}

std::vector<std::vector<std::size_t>> ReadersOfOneValue(const Network& network) {
  const auto graph = InlinedGraph(network.module);
  const ReadValues values = ValuesOf(FindLayerReads(*graph, network.module, network));
  std::vector<int> read(network.layers.size(), 0);  // of every layer how many values it reads
  for (const auto& [value, layers] : values) {
    for (const std::size_t l : std::set<std::size_t>(layers.begin(), layers.end())) ++read[l];
  }
  std::vector<std::vector<std::size_t>> found;
  for (const auto& [value, layers] : values) {
    std::vector<std::size_t> own;
    for (const std::size_t l : std::set<std::size_t>(layers.begin(), layers.end())) {
      if (read[l] == 1) own.push_back(l);
    }
    if (own.size() > 1) found.push_back(std::move(own));
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<std::size_t> SharedInputs(const Network& network) {
  const auto graph = InlinedGraph(network.module);
  return FirstReaders(ValuesOf(FindLayerReads(*graph, network.module, network)), network.layers.size());
}

}  // namespace bitplan
