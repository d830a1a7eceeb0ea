// The one representation of every network: a torch::jit::Module with the list of its layers.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace bitplan {

// How a convolution moves over its input, or a transposed one over its output.
struct LayerWindow {
  std::vector<std::int64_t> stride, padding, dilation;  // one for every dimension of the positions, 1 to 3
  std::int64_t groups = 1;
  bool transposed = false;
  std::vector<std::int64_t> output_padding = {};  // of a transposed one
};

struct Layer {
  std::string name;                   // attribute path, "features.3"; its weight is the tensor `parameter`
  std::string parameter;              // "features.3.weight": a parameter, or a buffer that the forward multiplies by
  std::string bias;                   // parameter that the layer adds to its outputs and nobody else uses, or empty
  std::string kind;                   // conv1d .. conv3d, conv_transpose1d .. conv_transpose3d, linear, embedding, and
                                      // of the weights of recurrent operations lstm, gru, rnn
  std::vector<std::int64_t> shape;    // of the parameter as stored: [out, in / groups, kh, kw] of conv2d, [out, in] of
                                      // linear, [in, out / groups, kh, kw] of conv_transpose2d, [rows, values]
  int output_dim = 0;                 // which dimension of the parameter counts output channels (1 for x @ W); of an
                                      // embedding its rows, which have a scale each
  std::int64_t macs = 0;              // of one input, all uses together; none in an embedding, which only looks up
  int uses = 1;                       // a weight used twice is one layer with two uses
  std::optional<LayerWindow> window;  // convolutions: of the first use; empty when the operation states no numbers
  std::int64_t output_values = 0;     // of one input, all uses together
  // Whether every use multiplies the whole weight by the input of its operation. Not so the weights of a recurrent
  // operation that meet its own states, and a weight of which a use takes a part, as attention over two tensors does.
  bool meets_whole_input = true;

  [[nodiscard]] std::int64_t weights() const;
  [[nodiscard]] std::int64_t output_channels() const { return shape[static_cast<std::size_t>(output_dim)]; }
  // Whether inputs and outputs are [N, channels, positions...]; otherwise channels come last.
  [[nodiscard]] bool is_convolution() const { return kind.starts_with("conv"); }
  // Dimensions of the positions of a convolution, 1 to 3.
  [[nodiscard]] std::size_t position_dims() const { return shape.size() - 2; }
  // Whether its outputs are products with its inputs. Those of an embedding are its rows, whatever the indices are.
  [[nodiscard]] bool multiplies() const { return kind != "embedding"; }
  // Whether its operation keeps a state from one time step to the next. Every row of its input meets the weight once.
  [[nodiscard]] bool is_recurrent() const { return kind == "lstm" || kind == "gru" || kind == "rnn"; }
  // Whether what its operation puts out are its products, a channel for every output channel, and a bias at most.
  [[nodiscard]] bool puts_out_products() const { return !is_recurrent() && meets_whole_input; }
  // Whether activations in front of it may be rounded. Recurrent operations compute in float32, states included.
  [[nodiscard]] bool rounds_input() const { return multiplies() && !is_recurrent(); }
};

struct BatchNorm {
  std::string name;          // attribute path
  std::string running_mean;  // buffer paths
  std::string running_var;
  std::int64_t channels = 0;
};

// A tensor that no layer plans, and why: a parameter, a buffer, or a constant of the graph.
struct FloatParameter {
  std::string parameter;  // attribute path, or "constant 3" for the third tensor that the graph itself holds
  std::vector<std::int64_t> shape;
  std::string reason;      // "bias", "batch norm", "used by aten::lstm", "not used by forward"
  std::int64_t bytes = 0;  // what it takes in the file of a model
  bool weight = true;      // false: no weight but a mask, an index, a positional encoding, a running statistic

  [[nodiscard]] std::int64_t weights() const;  // how many numbers it holds
};

struct Network {
  std::string name;
  torch::jit::Module module{"empty"};  // float32, evaluation mode
  std::vector<Layer> layers;           // execution order
  std::vector<BatchNorm> batch_norms;  // execution order; only those used once, whose statistics mean one place
  std::vector<FloatParameter> left_in_float;
  bool has_rare_layers = false;                  // some of `layers` a zero input does not reach
  std::vector<std::int64_t> input_shape;         // of one input, [C, H, W], [C, L], [F], ...
  torch::ScalarType input_type = torch::kFloat;  // kInt64 where the model takes no floats, as an embedding does
  // Buffers that every pass changes, such as running means in training mode, with their values before the first one.
  std::vector<std::pair<std::string, torch::Tensor>> changed_by_forward;

  [[nodiscard]] std::int64_t quantizable_weights() const;
  // Of everything in `left_in_float`: how many weights, and how many bytes whether weights or not.
  [[nodiscard]] std::int64_t weights_in_float() const;
  [[nodiscard]] std::int64_t bytes_in_float() const;
};

// The tensor at an attribute path ("features.3.weight"); shares storage with the module.
[[nodiscard]] torch::Tensor GetTensor(const torch::jit::Module& module, const std::string& path);
// Puts any tensor there, also a non-leaf one: the way sampling, quantization and fine-tuning reach a layer. Attributes
// tied to it (the same storage under another path) get the same tensor.
void SetTensor(torch::jit::Module& module, const std::string& path, const torch::Tensor& value);

// The place of a tensor, and of every attribute tied to it, found once: for loops that put a new tensor there again and
// again. Valid as long as the module keeps its submodules.
class TensorSlot {
 public:
  TensorSlot(const torch::jit::Module& module, const std::string& path);
  void Set(const torch::Tensor& value);

 private:
  std::vector<std::pair<torch::jit::Object, std::string>> places_;
};

// Switches batch norm and dropout, like module.train(training), also where a submodule has no such switch.
void SetTraining(torch::jit::Module& module, bool training);

// Loads a TorchScript or an ONNX file, converts it to float32 and evaluation mode without gradients, checks that every
// parameter is finite. Buffers may hold anything: -inf in a mask belongs there, and outputs that are not finite are
// refused later. Error(kNotFound) missing; Error(kData) corrupt, empty, NaN or infinite (names the tensor).
[[nodiscard]] torch::jit::Module LoadModule(const std::filesystem::path& file);
void SaveModule(const torch::jit::Module& module, const std::filesystem::path& file);  // atomic

// Puts the weights of a file into the parameters and buffers of the same names: float numbers of any width in a
// safetensors file, or in a state dict that Python wrote with torch.save. A prefix "module." or "_orig_mod." of every
// name is dropped. Tied weights need one of their names. Error(kNotFound) missing; Error(kData) damaged, a name that
// the model has not or that the file lacks, another shape, integers in the place of floats, NaN or infinite numbers.
void LayWeights(torch::jit::Module& module, const std::filesystem::path& file);

// forward() of a batch [N, ...], of a network or a clone of it: its answers, usually [N, classes]. What it raises, or a
// result that is no tensor, is Error(kData) in one line.
[[nodiscard]] torch::Tensor RunForward(const torch::jit::Module& module, const torch::Tensor& images);

// Finds the layers by one recorded forward pass of a zero batch of one input. Every tensor that the module or its graph
// holds is then either a layer's weight or in `left_in_float`. Switches TorchScript's graph optimizer off for the
// calling thread: every later run must be the same arithmetic on the same layers. `images` [n, ...], if any, are tried
// where that input leaves weights unused: a layer that only some inputs reach is a layer too. Buffers that these passes
// change are put back. Error(kData) when the model does not take the input shape (says both), takes batches of one size
// only, is quantized already, hides its layers in a fused operation, or holds no quantizable layer.
[[nodiscard]] Network DescribeNetwork(torch::jit::Module module, const std::string& name,
                                      const std::vector<std::int64_t>& input_shape, const torch::Tensor& images = {});

// Puts back in `module`, network.module or a clone of it, the buffers that forward itself changes
// (network.changed_by_forward): no pass of ours shall be seen in a network that is saved.
void RestoreChangedByForward(const Network& network, const torch::jit::Module& module);

// For `inspect`: tries the shapes of the known data sets when the user gives none, [1,28,28] and [3,32,32] first.
[[nodiscard]] std::vector<std::int64_t> GuessInputShape(const torch::jit::Module& module);

// SHA-256 over what the module holds (names, shapes and bytes of all tensors, every other attribute) and what it does
// (the operations of `forward` and of its hooks, with their constants): the same for a file saved again, another for
// the same weights with another forward.
[[nodiscard]] std::string ModelHash(const torch::jit::Module& module);

// Gives `to`, a module of the same structure, copies of all parameters and buffers of `from`. Tensors that are tied
// there are tied in `to`, and no others.
void CopyTensors(const torch::jit::Module& from, torch::jit::Module& to);

// Deep copy: parameters and buffers are cloned.
[[nodiscard]] torch::jit::Module CloneModule(const torch::jit::Module& module);

}  // namespace bitplan
