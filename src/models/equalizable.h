// Tensors whose channels can be divided where they are made and multiplied where they are read.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "bitplan/models/network.h"

namespace bitplan {

struct Equalizable {
  std::string weight, bias;          // of what makes it, dimension 0 of which counts its channels; no bias: empty
  std::vector<std::size_t> readers;  // layers
};

// Those that one batch norm, layer norm or layer makes, with a weight of its own, and nothing but layers reads, each
// used once; between them stands at most what keeps factors of channels. Found by one pass of zeros. The numbers of
// channels may still not fit.
[[nodiscard]] std::vector<Equalizable> FindEqualizable(const Network& network);

}  // namespace bitplan
