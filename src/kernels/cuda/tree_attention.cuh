#pragma once
// Forward of tree attention with the CPU's order of sums. A block of threads owns up to kPairs
// (row, head) pairs of one key/value head and takes them through their keys in blocks of 64: scores
// on register tiles with keys in 16 lanes, the softmax of a pair in the 16 threads that hold its
// scores, the values with columns across threads. Values come while scores are computed, the next
// keys while values are added. Blocks never meet, so no bit depends on the grid.

#include "cuda/attention_walk.cuh"
#include "cuda/math.cuh"
#include "cuda/reduce.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// kTiles is 2 where keys and values have a tile each, 1 where they take turns to save memory.
template <int kWidth_, int kPairs_, int kThreads_, int kTiles_>
struct AttendShape : WalkShape<kWidth_, kPairs_, kThreads_> {
  static constexpr int kTiles = kTiles_;
  static constexpr int kBlocks = kPairs_ <= 8 ? 4 : 2;  // A processor: caps the registers.
};

template <class S>
struct AttendShared {
  float *q, *keys, *values;
  float* weights;  // [kPairs, kWeightStride]
  float* factor;   // [kPairs] What a pair's sums are multiplied by before the block's keys come.
  float* inverse;  // [kPairs] At the end.
  WalkTables<S> walk;

  static constexpr size_t bytes() {
    return shared_bytes<float>(S::kPairRows) + S::kTiles * shared_bytes<float>(S::kKeyTile) +
           shared_bytes<float>(S::kWeights) + 2 * shared_bytes<float>(S::kPairs) +
           WalkTables<S>::bytes();
  }
  __device__ explicit AttendShared(SharedArena& arena)
      : q(arena.take<float>(S::kPairRows)),
        keys(arena.take<float>(S::kKeyTile)),
        values(S::kTiles == 2 ? arena.take<float>(S::kKeyTile) : keys),
        weights(arena.take<float>(S::kWeights)),
        factor(arena.take<float>(S::kPairs)),
        inverse(arena.take<float>(S::kPairs)),
        walk(arena) {}
};

/// Running softmax of the pairs group + r groups; the sum is this lane's of sixteen.
template <class S>
struct SoftmaxLane {
  float max[S::kScoreRows];
  float sum[S::kScoreRows];

  __device__ void reset() {
#pragma unroll
    for (int r = 0; r < S::kScoreRows; ++r) max[r] = -INFINITY, sum[r] = 0;
  }

  /// Takes a block's scores in, and leaves its weights and factors in shared memory.
  __device__ __forceinline__ void update(float (&scores)[S::kScoreRows][S::kLaneKeys], float scale,
                                         const AttendShared<S>& m) {
    const int group = static_cast<int>(threadIdx.x) / kKeyLanes;
    const int lane = static_cast<int>(threadIdx.x) % kKeyLanes;
#pragma unroll
    for (int r = 0; r < S::kScoreRows; ++r) {
      const int pair = group + r * S::kScoreGroups;
      const Lanes seen = m.walk.lanes(pair);
      float highest = -INFINITY;
#pragma unroll
      for (int i = 0; i < S::kLaneKeys; ++i) {
        const int key = lane + i * kKeyLanes;
        scores[r][i] = scores[r][i] * scale;
        if (key >= seen.lo && key < seen.hi) highest = fmaxf(highest, scores[r][i]);
      }
      highest = max_of16(highest);
      float factor = 1;  // Exact: a maximum that stays changes nothing.
      if (highest > max[r]) {
        factor = vexp(max[r] - highest);
        max[r] = highest;
      }
      float total = sum[r] * factor;
#pragma unroll
      for (int i = 0; i < S::kLaneKeys; ++i) {
        const int key = lane + i * kKeyLanes;
        if (key < seen.lo || key >= seen.hi) continue;
        const float p = vexp(scores[r][i] - max[r]);
        m.weights[pair * S::kWeightStride + key] = p;
        total += p;
      }
      sum[r] = total;
      if (lane == 0) m.factor[pair] = factor;
    }
  }

  /// Writes the log-sum-exp, and the inverse of the sum to shared memory.
  __device__ __forceinline__ void finish(const AttentionView& a, const PairTile& t,
                                         float* inverse) const {
    const int group = static_cast<int>(threadIdx.x) / kKeyLanes;
#pragma unroll
    for (int r = 0; r < S::kScoreRows; ++r) {
      const int pair = group + r * S::kScoreGroups;
      const float total = sum16(sum[r]);
      if (threadIdx.x % kKeyLanes != 0 || pair >= t.pairs()) continue;
      inverse[pair] = 1.0f / total;
      if (a.lse != nullptr) {
        a.lse[t.row_of(pair) * a.heads + t.head_of(pair)] = max[r] + vlog(total);
      }
    }
  }
};

/// One block of keys: expects its keys on the way, leaves the next block's on the way.
template <class S>
__device__ __forceinline__ void attend_keys(const AttentionView& a, AttendShared<S>& m, int kv_head,
                                            KeyCursor& cursor, SoftmaxLane<S>& softmax,
                                            float4 (&sums)[S::kSumRows]) {
  const int64_t* rows = m.walk.rows + m.walk.half * kBlockKeys;
  const int64_t* next_rows = m.walk.rows + (1 - m.walk.half) * kBlockKeys;
  const int64_t next = m.walk.base + kBlockKeys;
  async_wait<0>();
  __syncthreads();  // The keys are there, and nobody reads values and weights of the last block.
  if constexpr (S::kTiles == 2) load_keys<S>(a, a.v, kv_head, rows, m.values);
  float scores[S::kScoreRows][S::kLaneKeys];
  dot_tile<S::kWidth, S::kThreads>(m.q, m.keys, a.head_dim, scores);
  softmax.update(scores, a.scale, m);
  m.walk.find_rows(cursor, next, 1 - m.walk.half);
  if constexpr (S::kTiles == 1) {
    __syncthreads();
    load_keys<S>(a, a.v, kv_head, rows, m.values);
  }
  async_wait<0>();
  __syncthreads();  // The values are there, weights too, and nobody reads keys.
  if (S::kTiles == 2 && next < m.walk.end) load_keys<S>(a, a.k, kv_head, next_rows, m.keys);
  const int group = static_cast<int>(threadIdx.x) / S::kColumnThreads;
#pragma unroll
  for (int r = 0; r < S::kSumRows; ++r) {
    sums[r] = mul4(sums[r], m.factor[group + r * S::kSumGroups]);
  }
  add_keys<S>(m.walk, m.weights, m.values, sums);
  if constexpr (S::kTiles == 1) {
    __syncthreads();
    if (next < m.walk.end) load_keys<S>(a, a.k, kv_head, next_rows, m.keys);
  }
  m.walk.base = next;
  m.walk.half = 1 - m.walk.half;
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    attend_rows(AttentionView a, PairGrid grid) {
  SharedArena arena;
  AttendShared<S> m(arena);
  for_runs(a, grid, [&](const PairTile& t) {
    __syncthreads();  // Nobody reads what the run before left.
    KeyCursor cursor = m.walk.start(a, t);
    load_pairs<S>(a, a.q, a.q_stride, t, m.q);
    load_keys<S>(a, a.k, t.kv_head, m.walk.rows, m.keys);
    SoftmaxLane<S> softmax;
    softmax.reset();
    float4 sums[S::kSumRows];
#pragma unroll
    for (int r = 0; r < S::kSumRows; ++r) sums[r] = {0, 0, 0, 0};
    while (m.walk.base < m.walk.end) attend_keys<S>(a, m, t.kv_head, cursor, softmax, sums);
    softmax.finish(a, t, m.inverse);
    __syncthreads();
    for_sums<S>(a, t, [&](int pair, int r, int column) {
      float* out = a.out + t.row_of(pair) * a.out_stride +
                   static_cast<int64_t>(t.head_of(pair)) * a.head_dim + column;
      store4(out, mul4(sums[r], m.inverse[pair]), a.stores_are_aligned);
    });
  });
}

template <class S>
Status launch_attend(const AttentionView& a, int64_t rows_per_list, Stream stream) {
  const PairGrid grid = plan_pairs(a, S::kPairs, rows_per_list);
  return launch(attend_rows<S>, blocks_of(a, grid), S::kThreads, AttendShared<S>::bytes(), stream,
                a, grid);
}

/// Chooses tiles by the head's width, and by how many pairs see the same list.
inline Status launch_tree_attention(const TreeAttentionArgs& args, int64_t rows_per_list,
                                    Stream stream) {
  if (const char* what = broken_expectation(args)) return invalid_argument(what);
  if (rows_per_list < 0) return invalid_argument("[tree_attention] expected rows_per_list >= 0");
  if (args.queries.empty()) return {};
  const AttentionView a = view_of(args);
  const bool few = rows_per_list > 0 && rows_per_list * (a.heads / a.kv_heads) <= 8;
  if (a.head_dim <= 64) {
    return few ? launch_attend<AttendShape<64, 8, 128, 2>>(a, rows_per_list, stream)
               : launch_attend<AttendShape<64, 64, 128, 2>>(a, rows_per_list, stream);
  }
  if (a.head_dim <= 128) {
    return few ? launch_attend<AttendShape<128, 8, 128, 2>>(a, rows_per_list, stream)
               : launch_attend<AttendShape<128, 32, 128, 2>>(a, rows_per_list, stream);
  }
  return launch_attend<AttendShape<256, 16, 128, 1>>(a, rows_per_list, stream);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
