#pragma once
// Gradient of the queries: blocks of threads own pairs and walk their keys as the forward does. See
// tree_attention_key_gradient.cuh for keys and values.

#include "cuda/attention_walk.cuh"
#include "cuda/math.cuh"
#include "cuda/reduce.cuh"
#include "cuda/tree_attention_key_gradient.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// delta[row, head] = dout . out in sixteen lanes, half a warp each.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) dot_rows(AttentionGradients g, float* delta) {
  const AttentionView& a = g.forward;
  const int64_t items = a.rows * a.heads;
  const int64_t item = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 16;
  const int lane = static_cast<int>(threadIdx.x) % 16;
  float sum = 0;
  if (item < items) {
    const int64_t row = item / a.heads, column = item % a.heads * a.head_dim;
    const float* dout = g.dout + row * g.dout_stride + column;
    const float* out = a.out + row * a.out_stride + column;
    for (int i = lane; i < a.head_dim; i += 16) sum = fmaf(dout[i], out[i], sum);
  }
  sum = sum16(sum);
  if (item < items && lane == 0) delta[item] = sum;
}

/// kTiles as in AttendShape.
template <int kWidth_, int kPairs_, int kThreads_, int kTiles_>
struct QueryGradientShape : WalkShape<kWidth_, kPairs_, kThreads_> {
  static constexpr int kTiles = kTiles_;
};

template <class S>
struct QueryGradientShared {
  float *q, *dout, *keys, *values;
  float* ds;  // [kPairs, kWeightStride]
  float *lse, *delta;
  WalkTables<S> walk;

  static constexpr size_t bytes() {
    return 2 * shared_bytes<float>(S::kPairRows) + S::kTiles * shared_bytes<float>(S::kKeyTile) +
           shared_bytes<float>(S::kWeights) + 2 * shared_bytes<float>(S::kPairs) +
           WalkTables<S>::bytes();
  }
  __device__ explicit QueryGradientShared(SharedArena& arena)
      : q(arena.take<float>(S::kPairRows)),
        dout(arena.take<float>(S::kPairRows)),
        keys(arena.take<float>(S::kKeyTile)),
        values(S::kTiles == 2 ? arena.take<float>(S::kKeyTile) : keys),
        ds(arena.take<float>(S::kWeights)),
        lse(arena.take<float>(S::kPairs)),
        delta(arena.take<float>(S::kPairs)),
        walk(arena) {}
};

/// ds of a block's scores and of its dout . value goes to shared memory, where a pair sees the key.
template <class S>
__device__ __forceinline__ void store_score_gradients(
    const QueryGradientShared<S>& m, float scale,
    const float (&scores)[S::kScoreRows][S::kLaneKeys],
    const float (&dp)[S::kScoreRows][S::kLaneKeys]) {
#pragma unroll
  for (int r = 0; r < S::kScoreRows; ++r) {
    const int pair = static_cast<int>(threadIdx.x) / kKeyLanes + r * S::kScoreGroups;
    const Lanes seen = m.walk.lanes(pair);
    const float lse = m.lse[pair], delta = m.delta[pair];
#pragma unroll
    for (int i = 0; i < S::kLaneKeys; ++i) {
      const int key = static_cast<int>(threadIdx.x) % kKeyLanes + i * kKeyLanes;
      if (key < seen.lo || key >= seen.hi) continue;
      m.ds[pair * S::kWeightStride + key] =
          score_gradient(vexp(scores[r][i] * scale - lse), dp[r][i], delta, scale);
    }
  }
}

/// One block of keys: expects its tiles on the way, leaves those of the next block on the way.
template <class S>
__device__ __forceinline__ void query_gradient_keys(const AttentionView& a,
                                                    QueryGradientShared<S>& m, int kv_head,
                                                    KeyCursor& cursor,
                                                    float4 (&sums)[S::kSumRows]) {
  const int64_t* rows = m.walk.rows + m.walk.half * kBlockKeys;
  const int64_t* next_rows = m.walk.rows + (1 - m.walk.half) * kBlockKeys;
  const int64_t next = m.walk.base + kBlockKeys;
  float scores[S::kScoreRows][S::kLaneKeys], dp[S::kScoreRows][S::kLaneKeys];
  async_wait<0>();
  __syncthreads();
  dot_tile<S::kWidth, S::kThreads>(m.dout, m.values, a.head_dim, dp);
  if constexpr (S::kTiles == 1) {
    __syncthreads();
    load_keys<S>(a, a.k, kv_head, rows, m.keys);
    async_wait<0>();
    __syncthreads();
  }
  dot_tile<S::kWidth, S::kThreads>(m.q, m.keys, a.head_dim, scores);
  store_score_gradients<S>(m, a.scale, scores, dp);
  m.walk.find_rows(cursor, next, 1 - m.walk.half);
  __syncthreads();  // The weights are there, and nobody reads values.
  if (S::kTiles == 2 && next < m.walk.end) load_keys<S>(a, a.v, kv_head, next_rows, m.values);
  add_keys<S>(m.walk, m.ds, m.keys, sums);
  __syncthreads();
  if (next < m.walk.end) {
    load_keys<S>(a, S::kTiles == 2 ? a.k : a.v, kv_head, next_rows, m.keys);
  }
  m.walk.base = next;
  m.walk.half = 1 - m.walk.half;
}

template <class S>
__global__ void __launch_bounds__(S::kThreads) query_gradient(AttentionGradients g, PairGrid grid) {
  const AttentionView& a = g.forward;
  SharedArena arena;
  QueryGradientShared<S> m(arena);
  for_runs(a, grid, [&](const PairTile& t) {
    __syncthreads();  // Nobody reads what the run before left.
    KeyCursor cursor = m.walk.start(a, t);
    const int pair = static_cast<int>(threadIdx.x);
    if (pair < t.pairs()) {
      const int64_t at = t.row_of(pair) * a.heads + t.head_of(pair);
      m.lse[pair] = a.lse[at];
      m.delta[pair] = g.delta[at];
    }
    load_pairs<S>(a, a.q, a.q_stride, t, m.q);
    load_pairs<S>(a, g.dout, g.dout_stride, t, m.dout);
    load_keys<S>(a, a.v, t.kv_head, m.walk.rows, m.values);
    if (S::kTiles == 2) load_keys<S>(a, a.k, t.kv_head, m.walk.rows, m.keys);
    float4 sums[S::kSumRows];
#pragma unroll
    for (int r = 0; r < S::kSumRows; ++r) sums[r] = {0, 0, 0, 0};
    while (m.walk.base < m.walk.end) query_gradient_keys<S>(a, m, t.kv_head, cursor, sums);
    for_sums<S>(a, t, [&](int p, int r, int column) {
      store4(g.dq + t.row_of(p) * g.dq_stride + static_cast<int64_t>(t.head_of(p)) * a.head_dim +
                 column,
             sums[r], a.stores_are_aligned);
    });
  });
}

template <class S>
Status launch_query_gradient(const AttentionGradients& g, Stream stream) {
  const PairGrid grid = plan_pairs(g.forward, S::kPairs, 0);
  return launch(query_gradient<S>, blocks_of(g.forward, grid), S::kThreads,
                QueryGradientShared<S>::bytes(), stream, g, grid);
}

inline Status launch_query_gradient(const AttentionGradients& g, Stream stream) {
  if (g.forward.head_dim <= 64) {
    return launch_query_gradient<QueryGradientShape<64, 32, 128, 2>>(g, stream);
  }
  if (g.forward.head_dim <= 128) {
    return launch_query_gradient<QueryGradientShape<128, 16, 128, 2>>(g, stream);
  }
  return launch_query_gradient<QueryGradientShape<256, 8, 128, 1>>(g, stream);
}

inline AttentionGradients gradients_of(const TreeAttentionBackwardArgs& b,
                                       const TreeAttentionWorkspace& w) {
  AttentionGradients g{
      view_of(b.forward), b.dout,  b.dout_stride,   b.dq,           b.dq_stride, b.dk, b.dv,
      b.dkv_stride,       w.delta, w.blocks.data(), w.visits.data()};
  AttentionView& a = g.forward;
  a.loads_are_aligned = a.loads_are_aligned && aligned16(b.dout, b.dout_stride);
  a.stores_are_aligned = aligned16(b.dq, b.dq_stride) && aligned16(b.dk, b.dkv_stride) &&
                         aligned16(b.dv, b.dkv_stride);
  return g;
}

inline Status launch_delta(const AttentionGradients& g, float* delta, Stream stream) {
  constexpr int kThreads = 256;
  constexpr int kItems = kThreads / 16;
  const int64_t items = g.forward.rows * g.forward.heads;
  return launch(dot_rows<kThreads>, static_cast<unsigned>((items + kItems - 1) / kItems), kThreads,
                0, stream, g, delta);
}

inline Status launch_tree_attention_backward(const TreeAttentionBackwardArgs& b,
                                             const TreeAttentionWorkspace& w, Stream stream) {
  if (const char* what = broken_expectation(b.forward)) return invalid_argument(what);
  if (b.forward.queries.empty()) return {};
  if (b.forward.lse == nullptr || w.delta == nullptr) {
    return invalid_argument("[tree_attention_backward] expected the forward's lse, and delta");
  }
  const AttentionGradients g = gradients_of(b, w);
  Status status = launch_delta(g, w.delta, stream);
  if (status.ok()) status = launch_query_gradient(g, stream);
  if (status.ok()) status = launch_key_gradient(g, static_cast<int64_t>(w.blocks.size()), stream);
  return status;
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
