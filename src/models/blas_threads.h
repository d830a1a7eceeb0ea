// The threads of OpenBLAS, which keeps its own beside those of LibTorch.
#pragma once

namespace bitplan {

// How many it multiplies with from now on; 0 leaves them as they are. Returns how many there were, or 0 where another
// library multiplies.
int SetBlasThreads(int count);

}  // namespace bitplan
