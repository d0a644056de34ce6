#pragma once

#include <functional>
#include <string>
#include <vector>

/// One kernel call of a fixed size, ready to be timed.
struct PriceOp {
  std::string name;
  std::function<void()> run;
};

/// The library's kernels, as they are.
std::vector<PriceOp> exact_ops();
/// The same sources, compiled with -ffast-math, fused products and no fixed chunks.
std::vector<PriceOp> free_ops();
