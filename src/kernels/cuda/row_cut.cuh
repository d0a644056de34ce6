#pragma once
// Finds where a row of logits, sorted, is to be cut, without sorting it: the place is narrowed down
// digit by digit, by exact sums of integers that no order can change.

#include "cuda/reduce.cuh"
#include "logits_formula.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// A column's place in ascending order, the lower id of equal logits above the higher: 32 bits of
/// key above kIdBits of the id's complement.
using Place = unsigned long long;
inline constexpr int kIdBits = 22;
inline constexpr int64_t kMostIds = int64_t{1} << kIdBits;
inline constexpr unsigned kIdMask = (1u << kIdBits) - 1;

__device__ __forceinline__ Place place_of(uint32_t key, int64_t id) {
  return static_cast<Place>(key) << kIdBits | (kIdMask - static_cast<unsigned>(id));
}
__device__ __forceinline__ uint32_t key_of(Place place) {
  return static_cast<uint32_t>(place >> kIdBits);
}
__device__ __forceinline__ int32_t id_of(Place place) {
  return static_cast<int32_t>(kIdMask - (static_cast<unsigned>(place) & kIdMask));
}

inline constexpr int kDigitBits = 11;
inline constexpr int kBins = 1 << kDigitBits;

struct CutScratch {
  Mass* bins;   // [kBins]
  Mass* found;  // [4]: digit, mass at or below which the cut lies in it, mass, 1 if there is a cut

  static size_t bytes() { return shared_bytes<Mass>(kBins) + shared_bytes<Mass>(4); }
  __device__ explicit CutScratch(SharedArena& arena)
      : bins(arena.take<Mass>(kBins)), found(arena.take<Mass>(4)) {}
};

/// Inclusive sums over the lanes of a warp.
__device__ __forceinline__ Mass scan_warp(Mass v) {
  for (unsigned d = 1; d < 32; d *= 2) {
    const Mass below = __shfl_up_sync(kAllLanes, v, d);
    if (lane_id() >= d) v += below;
  }
  return v;
}

/// One warp: the first bin up to which the mass is above limit(all mass), written to `found`.
template <class Limit>
__device__ __forceinline__ void find_bin(const CutScratch& s, const Limit& limit) {
  constexpr int kEach = kBins / 32;
  const int lane = static_cast<int>(lane_id());
  Mass sum = 0;
  // Lanes begin at different bins, as else all would meet in one bank.
  for (int i = 0; i < kEach; ++i) sum += s.bins[lane * kEach + (i + lane) % kEach];
  const Mass upto = scan_warp(sum);
  const Mass total = __shfl_sync(kAllLanes, upto, 31);
  Mass most = 0;
  const bool cut = limit(total, &most);
  if (lane == 0) s.found[3] = cut;
  if (!cut) return;
  const int part = __ffs(static_cast<int>(__ballot_sync(kAllLanes, upto > most))) - 1;
  const Mass before = __shfl_sync(kAllLanes, upto - sum, part);
  const int first = part * kEach + 2 * lane;
  const Mass low = s.bins[first], high = s.bins[first + 1];
  const Mass upto_high = before + scan_warp(low + high);
  const int owner = __ffs(static_cast<int>(__ballot_sync(kAllLanes, upto_high > most))) - 1;
  if (lane != owner) return;
  const bool in_low = upto_high - high > most;
  const Mass mass = in_low ? low : high;
  s.found[0] = static_cast<Mass>(in_low ? first : first + 1);
  s.found[1] = most - ((in_low ? upto_high - high : upto_high) - mass);
  s.found[2] = mass;
}

/// The least place up to which the mass of the row, from below, is above limit(total mass, &most):
/// what lies there and above is to be kept. 0 if `limit` returns false. Without `kTies` equal
/// logits are kept together. A block's threads call it together.
/// @param place   place(i) of column i in [0, n).
/// @param weigh   weigh(key): the mass of a column.
template <bool kTies, class PlaceAt, class Weigh, class Limit>
__device__ __forceinline__ Place find_cut(int64_t n, const PlaceAt& place, const Weigh& weigh,
                                          const Limit& limit, const CutScratch& s) {
  Place cut = 0;
  Mass most = 0;
  int shift = 32 + kIdBits;  // Of the digit before.
  for (int level = 0; level < (kTies ? 5 : 3); ++level) {
    const int bits = level == 2 ? 10 : kDigitBits;
    const int above = shift;
    shift -= bits;
    __syncthreads();  // All have read what was found before.
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += static_cast<int>(blockDim.x)) {
      s.bins[i] = 0;
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
      const Place p = place(i);
      if (p >> above != cut >> above) continue;
      const Mass mass = level < 3 ? weigh(key_of(p)) : 1;
      if (mass > 0) atomicAdd(&s.bins[p >> shift & ((1u << bits) - 1)], mass);
    }
    __syncthreads();
    if (warp_id() == 0) {
      find_bin(s, [&](Mass total, Mass* out) {
        *out = most;
        return level > 0 || limit(total, out);
      });
    }
    __syncthreads();
    if (s.found[3] == 0) return 0;
    cut |= s.found[0] << shift;
    most = s.found[1];
    // Equal logits have equal mass: from here on they are counted.
    if (level == 2) most /= weigh(key_of(cut));
    if (level >= 2 && most == 0) break;
  }
  return cut;
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
