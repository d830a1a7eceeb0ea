// The ONNX graph while it grows: operations are appended in order, constants become initializers, and every name is
// given out once.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "exporters/onnx_model.h"
#include "exporters/onnx_weights.h"

namespace bitplan {

// Sizes of the two batches that the network is walked with. Both are odd, have no common divisor and are not one, so
// that no size that depends on the batch looks like a constant.
inline constexpr std::int64_t kBatches[2] = {3, 5};

// A size in the two walks: a constant, or a multiple of the batch.
struct Extent {
  std::int64_t first = 0, second = 0;

  [[nodiscard]] bool fixed() const { return first == second; }
  // How many times the batch; 0 where it is neither fixed nor a multiple.
  [[nodiscard]] std::int64_t times() const {
    const std::int64_t times = first / kBatches[0];
    return times * kBatches[0] == first && times * kBatches[1] == second ? times : 0;
  }
};
using Extents = std::vector<Extent>;

inline constexpr char kQonnxDomain[] = "qonnx.custom_op.general";

[[nodiscard]] Extents ExtentsOf(const torch::Tensor& first, const torch::Tensor& second);

// Error(kData) for a type that ONNX has no name for.
[[nodiscard]] onnx_file::Type OnnxType(torch::ScalarType type);

class OnnxGraph {
 public:
  explicit OnnxGraph(std::string input, OnnxWeights weights = OnnxWeights::kIntegers)
      : input_(std::move(input)), weights_(weights) {
    names_.insert(input_);
  }

  // Appends an operation; the names of its outputs begin with the scope.
  [[nodiscard]] std::string Add(const std::string& type, const std::vector<std::string>& inputs,
                                const std::vector<onnx_file::Attribute>& attributes = {});
  // With one output of this name.
  [[nodiscard]] std::string AddAs(const std::string& type, const std::string& input, const std::string& output);
  [[nodiscard]] std::vector<std::string> AddMany(const std::string& type, const std::vector<std::string>& inputs,
                                                 const std::vector<onnx_file::Attribute>& attributes,
                                                 std::size_t outputs);

  // Initializers; small ones with the same content are one. `name`: a wish, for those that users know.
  [[nodiscard]] std::string Constant(const torch::Tensor& value, const std::string& name = "");
  [[nodiscard]] std::string Ints(const std::vector<std::int64_t>& values);  // int64 [n]
  [[nodiscard]] std::string Number(double value, torch::ScalarType type);   // []
  // The output of DequantizeLinear, or of a node of QONNX.
  [[nodiscard]] std::string Weight(const IntegerWeight& weight, const std::string& name);

  // The size of the batch, times a number: int64 [1].
  [[nodiscard]] std::string Batch(std::int64_t times = 1);
  // int64 [dims]. Error(kData) where a size depends on the batch in another way than a multiple.
  [[nodiscard]] std::string Shape(const Extents& extents);
  [[nodiscard]] std::string Reshape(const std::string& from, const Extents& to);
  [[nodiscard]] std::string Cast(const std::string& from, torch::ScalarType to);

  // Operations from here on belong to this module.
  void SetScope(const std::string& scope) { scope_ = scope; }
  [[nodiscard]] std::string Unique(const std::string& wish);

  // Operations and initializers, without those that nothing reads.
  void MoveInto(onnx_file::Model& model, const std::vector<std::string>& outputs) &&;

 private:
  [[nodiscard]] std::string QuantNode(const IntegerWeight& weight, const std::string& name);

  std::string input_, scope_;
  OnnxWeights weights_;
  std::vector<onnx_file::Operation> operations_;
  std::vector<onnx_file::Initializer> initializers_;
  std::set<std::string> names_;
  std::map<std::string, int> endings_;           // the last number given out after a name
  std::map<std::string, std::string> small_;     // content of a small constant -> its name
  std::map<std::int64_t, std::string> batches_;  // by `times`
};

}  // namespace bitplan
