// A forward pass in pieces, so that it can start again in the middle: where one layer changes, what comes before it is
// not computed again.
//
// The graph of the module, calls written out, is cut before the operations that run a layer. A point of a pass holds
// the values that later pieces read, and nothing else. Points can be copied; a copy shares its tensors. So a cut is
// made only where no later operation writes into a value that lies ready there, and where it is not allowed the piece
// before it gets longer. A layer inside a branch or a loop is in the piece that holds the whole branch or loop. In the
// worst case there is one piece.
//
//   const ResumablePass pass(network, module, images);
//   for (auto point = pass.Begin(images); !pass.AtEnd(point); pass.Step(point)) {
//     const torch::Tensor answers = pass.Finish(point);  // the same from every point, as long as no weight changes
//   }
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/interpreter.h>
#include <torch/types.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "bitplan/models/network.h"

namespace bitplan {

class ResumablePass {
 public:
  // `module`: network.module or a clone of it; its tensors are read in every run, so they may change in place. `images`
  // [n, ...] go through once, to see which operations run layers. Error(kData) as RunForward.
  ResumablePass(const Network& network, const torch::jit::Module& module, const torch::Tensor& images);

  struct Point {
    std::size_t piece = 0;            // the next one
    std::vector<c10::IValue> values;  // by slot; of a value that no later piece reads nothing
  };
  [[nodiscard]] Point Begin(const torch::Tensor& images) const;
  [[nodiscard]] bool AtEnd(const Point& point) const { return point.piece == pieces_.size(); }
  // Runs the next piece.
  void Step(Point& point) const;
  // Runs what is left: the network's answers.
  [[nodiscard]] torch::Tensor Finish(Point point) const;

  [[nodiscard]] std::size_t pieces() const { return pieces_.size(); }

 private:
  struct Piece {
    std::unique_ptr<torch::jit::Code> code;
    std::vector<std::size_t> reads, writes;  // slots of its inputs and outputs
    std::vector<std::size_t> last_read;      // slots that no later piece reads
  };
  // Cuts the graph before the nodes with these numbers, ascending, the first one 0.
  void Cut(const std::shared_ptr<torch::jit::Graph>& graph, const std::vector<std::size_t>& begins);

  torch::jit::Module module_;
  std::vector<Piece> pieces_;
  std::size_t slots_ = 0, answer_slot_ = 0;
  std::vector<std::size_t> input_slots_;  // of the module, the images, and arguments that have a default
};

}  // namespace bitplan
