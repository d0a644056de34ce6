#pragma once
// What the forward and the query gradient share: a block of threads takes its (row, head) pairs
// through the logical keys of their list, 64 at a time.

#include "cuda/attention_tile.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// Sizes that a kernel is compiled for. kWidth is a power of two that the head fits in.
template <int kWidth_, int kPairs_, int kThreads_>
struct WalkShape {
  static constexpr int kWidth = kWidth_;
  static constexpr int kPairs = kPairs_;
  static constexpr int kThreads = kThreads_;
  static constexpr int kStride = kTileStride<kWidth>;
  static constexpr int kWeightStride = kBlockKeys + 4;
  // Scores: groups of 16 lanes, each lane with four keys.
  static constexpr int kScoreGroups = kThreads / kKeyLanes;
  static constexpr int kScoreRows = kPairs / kScoreGroups;
  static constexpr int kLaneKeys = kBlockKeys / kKeyLanes;
  // Sums over keys: groups of kWidth / 4 threads, each thread with four columns.
  static constexpr int kColumnThreads = kWidth / 4;
  static constexpr int kSumGroups = kThreads / kColumnThreads;
  static constexpr int kSumRows = kPairs / kSumGroups;
  static_assert(kScoreRows * kScoreGroups == kPairs && kSumRows * kSumGroups == kPairs);
  static_assert(kThreads >= kBlockKeys && kThreads >= kPairs);
  static constexpr size_t kKeyTile = size_t{kBlockKeys} * kStride;
  static constexpr size_t kPairRows = size_t{kPairs} * kStride;
  static constexpr size_t kWeights = size_t{kPairs} * kWeightStride;
};

/// Lanes [lo, hi) of a block of keys.
struct Lanes {
  int lo, hi;
};
/// Those of logical keys [first, last), for the block at `base`.
__device__ __forceinline__ Lanes lanes_of(int64_t first, int64_t last, int64_t base) {
  const int64_t lo = first - base, hi = last - base;
  return {static_cast<int>(lo > 0 ? (lo < kBlockKeys ? lo : kBlockKeys) : 0),
          static_cast<int>(hi > 0 ? (hi < kBlockKeys ? hi : kBlockKeys) : 0)};
}

/// The pairs' keys and the place in them, in shared memory.
template <class S>
struct WalkTables {
  int64_t* first;  // [kPairs] The first logical key that a pair sees,
  int64_t* last;   // [kPairs] and the one behind its last: both 0 for pairs that do not exist.
  int64_t* rows;   // [2, kBlockKeys] Array rows of this block's keys and of the next's; or -1.
  int64_t base = 0, end = 0;  // The block's first logical key; the one behind the last block's.
  int half = 0;               // Of `rows`.

  static constexpr size_t bytes() {
    return 2 * shared_bytes<int64_t>(S::kPairs) + shared_bytes<int64_t>(2 * kBlockKeys);
  }
  __device__ explicit WalkTables(SharedArena& arena)
      : first(arena.take<int64_t>(S::kPairs)),
        last(arena.take<int64_t>(S::kPairs)),
        rows(arena.take<int64_t>(2 * kBlockKeys)) {}

  /// Array rows of the block's keys go to `rows`; the keys may not go back.
  __device__ void find_rows(KeyCursor& cursor, int64_t at, int half_to) {
    const int lane = static_cast<int>(threadIdx.x);
    if (lane >= kBlockKeys) return;
    rows[half_to * kBlockKeys + lane] = at + lane < end ? cursor.row(at + lane) : -1;
  }

  /// Sets out on a run. All threads call it; a barrier must lie between it and earlier reads.
  __device__ KeyCursor start(const AttentionView& a, const PairTile& t) {
    const int pair = static_cast<int>(threadIdx.x);
    if (pair < S::kPairs) {
      const bool exists = pair < t.pairs();
      first[pair] = exists ? a.first_visible(t.row_of(pair)) : 0;
      last[pair] = exists ? a.visible(t.row_of(pair)) : 0;
    }
    __syncthreads();
    int64_t begin = first[0];
    end = 0;
    for (int p = 0; p < t.pairs(); p += t.heads) {
      begin = first[p] < begin ? first[p] : begin;
      end = last[p] > end ? last[p] : end;
    }
    base = begin / kBlockKeys * kBlockKeys;
    half = 0;
    KeyCursor cursor(a.spans + a.queries[t.row].span_begin);
    find_rows(cursor, base, 0);
    __syncthreads();
    return cursor;
  }
  __device__ Lanes lanes(int pair) const { return lanes_of(first[pair], last[pair], base); }
};

/// Brings one head of the keys (or values) whose array rows are given to a tile.
template <class S>
__device__ __forceinline__ void load_keys(const AttentionView& a, const float* array, int kv_head,
                                          const int64_t* rows, float* tile) {
  load_tile<kBlockKeys, S::kWidth, S::kThreads>(
      tile, a.head_dim, a.loads_are_aligned, [&](int key) -> const float* {
        if (rows[key] < 0) return nullptr;
        return array + rows[key] * a.kv_stride + static_cast<int64_t>(kv_head) * a.head_dim;
      });
}

/// Brings the pairs' rows of an array shaped like q to a tile.
template <class S>
__device__ __forceinline__ void load_pairs(const AttentionView& a, const float* array,
                                           int64_t stride, const PairTile& t, float* tile) {
  load_tile<S::kPairs, S::kWidth, S::kThreads>(
      tile, a.head_dim, a.loads_are_aligned, [&](int pair) -> const float* {
        if (pair >= t.pairs()) return nullptr;
        return array + t.row_of(pair) * stride + static_cast<int64_t>(t.head_of(pair)) * a.head_dim;
      });
}

/// Adds keys [begin, end) to the sums of this thread, those only that a pair sees.
template <class S>
__device__ __forceinline__ void add_seen_keys(const WalkTables<S>& walk, const float* weights,
                                              const float* column, Lanes keys,
                                              float4 (&sums)[S::kSumRows]) {
  const int group = static_cast<int>(threadIdx.x) / S::kColumnThreads;
  for (int j = keys.lo; j < keys.hi; ++j) {
    const float4 value = load4(column + j * S::kStride);
#pragma unroll
    for (int r = 0; r < S::kSumRows; ++r) {
      const int pair = group + r * S::kSumGroups;
      const int64_t key = walk.base + j;
      if (key >= walk.first[pair] && key < walk.last[pair]) {
        sums[r] = fma4(weights[pair * S::kWeightStride + j], value, sums[r]);
      }
    }
  }
}

/// sums[r] += sum of weight(pair, key) row(key) over the keys that a pair sees, one chain over
/// ascending keys: pairs group + r groups, four columns a thread.
template <class S>
__device__ __forceinline__ void add_keys(const WalkTables<S>& walk, const float* weights,
                                         const float* tile, float4 (&sums)[S::kSumRows]) {
  const int group = static_cast<int>(threadIdx.x) / S::kColumnThreads;
  const float* column = tile + threadIdx.x % S::kColumnThreads * 4;
  Lanes any{kBlockKeys, 0}, all{0, kBlockKeys};  // Keys that some, and that all of the pairs see.
#pragma unroll
  for (int r = 0; r < S::kSumRows; ++r) {
    const int pair = group + r * S::kSumGroups;
    if (walk.last[pair] == 0) continue;  // Does not exist: its sums are never read.
    const Lanes lanes = walk.lanes(pair);
    if (lanes.lo < lanes.hi) any = {min(any.lo, lanes.lo), max(any.hi, lanes.hi)};
    all = {max(all.lo, lanes.lo), min(all.hi, lanes.hi)};
  }
  all = {(all.lo + 3) / 4 * 4, all.hi / 4 * 4};
  if (all.lo >= all.hi) return add_seen_keys<S>(walk, weights, column, any, sums);
  add_seen_keys<S>(walk, weights, column, {any.lo, all.lo}, sums);
  weights += group * S::kWeightStride;
  for (int j = all.lo; j < all.hi; j += 4) {
    float4 value[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = load4(column + (j + i) * S::kStride);
#pragma unroll
    for (int r = 0; r < S::kSumRows; ++r) {
      const float4 w = load4(weights + r * S::kSumGroups * S::kWeightStride + j);
      sums[r] = fma4(w.x, value[0], sums[r]);
      sums[r] = fma4(w.y, value[1], sums[r]);
      sums[r] = fma4(w.z, value[2], sums[r]);
      sums[r] = fma4(w.w, value[3], sums[r]);
    }
  }
  weights -= group * S::kWeightStride;
  add_seen_keys<S>(walk, weights, column, {all.hi, any.hi}, sums);
}

/// Calls `body(pair, r, column)` for the four columns from `column` of each pair that this thread
/// holds sums of.
template <class S, class Body>
__device__ __forceinline__ void for_sums(const AttentionView& a, const PairTile& t,
                                         const Body& body) {
  const int group = static_cast<int>(threadIdx.x) / S::kColumnThreads;
  const int column = static_cast<int>(threadIdx.x) % S::kColumnThreads * 4;
  if (column >= a.head_dim) return;
#pragma unroll
  for (int r = 0; r < S::kSumRows; ++r) {
    const int pair = group + r * S::kSumGroups;
    if (pair < t.pairs()) body(pair, r, column);
  }
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
