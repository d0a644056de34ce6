#pragma once
// Twins of core/rng.h for the device: the same integers, hence the same numbers.

#include "cuda/device.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

struct Words4 {
  uint32_t v[4];
};

/// philox4x32.
__device__ __forceinline__ Words4 philox(uint64_t key, Words4 c) {
  auto k0 = static_cast<uint32_t>(key);
  auto k1 = static_cast<uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c.v[0]), low0 = 0xD2511F53u * c.v[0];
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c.v[2]), low1 = 0xCD9E8D57u * c.v[2];
    c = {{high1 ^ c.v[1] ^ k0, low1, high0 ^ c.v[3] ^ k1, low0}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/// keyed_random.
__device__ __forceinline__ Words4 keyed_words(uint64_t seed, uint32_t purpose, uint32_t step,
                                              uint64_t sequence, uint32_t position) {
  const Words4 k = philox(seed, {{purpose, step, 0x7465u, 0x6d70u}});
  return philox(
      static_cast<uint64_t>(k.v[0]) << 32 | k.v[1],
      {{static_cast<uint32_t>(sequence), static_cast<uint32_t>(sequence >> 32), position, k.v[2]}});
}

/// uniform_from_bits.
__device__ __forceinline__ double uniform_from_words(uint32_t high, uint32_t low) {
  return static_cast<double>(static_cast<uint64_t>(high) << 21 ^ static_cast<uint64_t>(low) >> 11) *
         0x1p-53;
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
