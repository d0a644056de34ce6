#pragma once
// Test kernels compiled for the device; the emulator runs the same source.

#include <cstdint>

#include "temper/kernels/cuda.h"

namespace temper::test {

struct SoftmaxPointers {
  const float* in;
  float* out;
  float* sums;
  int64_t rows, n;
};

[[nodiscard]] kernels::cuda::Status softmax_on_device(const SoftmaxPointers& p,
                                                      kernels::cuda::Stream stream);

/// in [128], out [kVocabularyWords]; see kernels/cuda_sim/vocabulary.cuh.
[[nodiscard]] kernels::cuda::Status vocabulary_on_device(const uint32_t* in, uint32_t* out,
                                                         kernels::cuda::Stream stream);

}  // namespace temper::test
