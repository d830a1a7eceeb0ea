// Compiled once, so that the precompiled header that all tests with LibTorch share exists.
#include "support/catch_torch.h"
