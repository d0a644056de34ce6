#pragma once

#include "cuda/elementwise.cuh"
#include "cuda/ordered_sum.cuh"
#include "cuda/reduce.cuh"
#include "stats_formula.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// What is summed in which pass.
enum class StatsPass { kSum, kSquares };

inline constexpr int kStatsWarps = 4;

inline int64_t stats_blocks(int64_t count) { return (count + kStatsBlock - 1) / kStatsBlock; }

/// One warp a block of elements: its sum into parts[block], and in the first pass its number of
/// active elements into counts[block].
template <StatsPass kPass>
__global__ void __launch_bounds__(32 * kStatsWarps)
    stats_parts(MaskedStatsArgs a, int64_t blocks, double* parts, double* counts) {
  const double mean = kPass == StatsPass::kSquares ? a.stats->mean : 0.0;
  for_warps<kStatsWarps>(blocks, [&](int64_t block) {
    const int64_t begin = block * kStatsBlock;
    const int64_t end = begin + kStatsBlock < a.count ? begin + kStatsBlock : a.count;
    double sum = 0, active = 0;
    for (int64_t i = begin + lane_id(); i < end; i += kStatsLanes) {
      if (a.mask != nullptr && a.mask[i] == 0) continue;
      const double x = static_cast<double>(a.x[i]) - mean;
      sum += kPass == StatsPass::kSquares ? x * x : static_cast<double>(a.x[i]);
      active += 1;
    }
    sum = warp_sum(sum);
    active = warp_sum(active);
    if (lane_id() == 0) {
      parts[block] = sum;
      if (kPass == StatsPass::kSum) counts[block] = active;
    }
  });
}

/// One block: adds the parts in order.
template <StatsPass kPass>
__global__ void __launch_bounds__(kOrderedThreads)
    stats_total(int64_t blocks, const double* parts, const double* counts, MaskedStats* stats) {
  SharedArena arena;
  double* tile = arena.take<double>(kOrderedThreads);
  const double sum = ordered_sum(parts, blocks, tile);
  const double n = kPass == StatsPass::kSum ? ordered_sum(counts, blocks, tile) : 0.0;
  if (threadIdx.x != 0) return;
  if (kPass == StatsPass::kSum) {
    *stats = MaskedStats{sum, n > 0 ? sum / n : 0.0, 0.0, static_cast<int64_t>(n)};
  } else {
    const int64_t count = stats->count;
    stats->variance = count > 1 ? sum / static_cast<double>(count - 1) : 0.0;
  }
}

__global__ void __launch_bounds__(kElementThreads) whiten_elements(WhitenArgs a) {
  const MaskedStats stats = *a.stats;
  for_elements(a.count, [&](int64_t i) {
    const bool active = a.mask == nullptr || a.mask[i] != 0;
    a.y[i] =
        active ? static_cast<float>(whitened(static_cast<double>(a.x[i]), stats, a)) : 0.0f;
  });
}

inline Status launch_masked_stats(const MaskedStatsArgs& a, Stream stream) {
  if (a.count < 0) return invalid_argument("[masked_stats] count must be >= 0");
  const int64_t blocks = stats_blocks(a.count);
  double* parts = a.workspace;
  double* counts = a.workspace + blocks;
  const unsigned grid = warp_blocks<kStatsWarps>(blocks);
  const size_t shared = shared_bytes<double>(kOrderedThreads);
  Status status = launch(stats_parts<StatsPass::kSum>, grid, 32 * kStatsWarps, 0, stream, a, blocks,
                         parts, counts);
  if (!status.ok()) return status;
  status = launch(stats_total<StatsPass::kSum>, 1, kOrderedThreads, shared, stream, blocks, parts,
                  counts, a.stats);
  if (!status.ok()) return status;
  status = launch(stats_parts<StatsPass::kSquares>, grid, 32 * kStatsWarps, 0, stream, a, blocks,
                  parts, counts);
  if (!status.ok()) return status;
  return launch(stats_total<StatsPass::kSquares>, 1, kOrderedThreads, shared, stream, blocks, parts,
                counts, a.stats);
}

inline Status launch_whiten(const WhitenArgs& a, Stream stream) {
  if (a.count < 0) return invalid_argument("[whiten] count must be >= 0");
  return launch(whiten_elements, element_blocks(a.count), kElementThreads, 0, stream, a);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
