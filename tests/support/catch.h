// Catch2 2.x or 3.x behind one name. Tests that also need LibTorch include support/catch_torch.h instead.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
using Catch::Matchers::Contains;
#endif
