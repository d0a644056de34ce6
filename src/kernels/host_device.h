// Marks a function that the CPU sources and the CUDA kernels both call: one formula, one order of
// operations, and so the same bits on both (no contraction on either side).
#pragma once

#ifdef __CUDACC__
#define TEMPER_HOST_DEVICE __host__ __device__
#else
#define TEMPER_HOST_DEVICE
#endif
