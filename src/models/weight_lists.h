// Weights that a module holds twice, as attributes and in a list.
#pragma once

#include <torch/csrc/jit/api/module.h>

namespace bitplan {

// A scripted nn.LSTM, nn.GRU or nn.RNN reads its weights from a list, `_flat_weights`, which shares them with its
// parameters: another tensor in a parameter would not reach the list. Where every tensor of a list is an attribute of
// the same module, and code does nothing but read it, the code reads these attributes instead, and the list is emptied.
void ReadListsFromAttributes(const torch::jit::Module& module);

}  // namespace bitplan
