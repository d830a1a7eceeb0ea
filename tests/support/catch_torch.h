// LibTorch first, Catch2 second: the other way round, Catch2's CHECK is replaced by glog's, which aborts.
#pragma once

#include <torch/script.h>
#include <torch/torch.h>

#ifdef CHECK
#undef CHECK
#endif

#include "support/catch.h"
