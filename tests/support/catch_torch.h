// LibTorch first, Catch2 second: the other way round, Catch2's CHECK is replaced by glog's, which aborts.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/serialize.h>
#include <torch/types.h>
#include <torch/utils.h>

#ifdef CHECK
#undef CHECK
#endif

#include "support/catch.h"
