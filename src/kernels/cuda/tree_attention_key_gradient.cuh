#pragma once
// Gradients of keys and values: a block of threads owns neighbouring rows of the key array and one
// key/value head, and adds the pairs that see them in ascending (row, head) order, one chain each.
// Sums stay in registers from the first pair to the last; nothing is combined across blocks.

#include "cuda/attention_tile.cuh"
#include "cuda/math.cuh"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// The arguments of the backward as kernels read them.
struct AttentionGradients {
  AttentionView forward;
  const float* dout;
  int64_t dout_stride;
  float* dq;
  int64_t dq_stride;
  float *dk, *dv;
  int64_t dkv_stride;
  const float* delta;  // [rows, heads] dout . out
  const TreeAttentionKeyPlan::Block* blocks;
  const TreeAttentionKeyPlan::Visit* visits;
};

/// Gradient of q . key for the weight p and dp = dout . value.
__device__ __forceinline__ float score_gradient(float p, float dp, float delta, float scale) {
  return p * (dp - delta) * scale;
}

template <int kWidth_, int kKeys_, int kPairs_, int kThreads_>
struct KeyGradientShape {
  static constexpr int kWidth = kWidth_;
  static constexpr int kKeys = kKeys_;
  static constexpr int kPairs = kPairs_;
  static constexpr int kThreads = kThreads_;
  static constexpr int kParts = kBlockKeys / kKeys;  // Blocks of threads for a block of keys.
  static constexpr int kStride = kTileStride<kWidth>;
  static constexpr int kWeightStride = kKeys + 4;
  static constexpr int kScoreGroups = kThreads / kKeyLanes;
  static constexpr int kScoreRows = kPairs / kScoreGroups;
  static constexpr int kLaneKeys = kKeys / kKeyLanes;
  static constexpr int kColumnThreads = kWidth / 4;
  static constexpr int kSumKeys = kKeys / (kThreads / kColumnThreads);  // Neighbours, a thread.
  static_assert(kScoreRows * kScoreGroups == kPairs && kLaneKeys * kKeyLanes == kKeys);
  static_assert(kSumKeys % 4 == 0 && kThreads >= kPairs);
  static constexpr size_t kKeyTile = size_t{kKeys} * kStride;
  static constexpr size_t kPairTile = size_t{kPairs} * kStride;
  static constexpr size_t kWeights = size_t{kPairs} * kWeightStride;
};

template <class S>
struct KeyGradientShared {
  float *keys, *values, *q, *dout;
  float *p, *ds;  // [kPairs, kWeightStride]
  // Of the pairs in the tile: row (or -1), head, lanes seen, log-sum-exp and delta.
  int64_t* row;
  int *head, *lo, *hi;
  float *lse, *delta;

  static constexpr size_t bytes() {
    return 2 * shared_bytes<float>(S::kKeyTile) + 2 * shared_bytes<float>(S::kPairTile) +
           2 * shared_bytes<float>(S::kWeights) + shared_bytes<int64_t>(S::kPairs) +
           3 * shared_bytes<int>(S::kPairs) + 2 * shared_bytes<float>(S::kPairs);
  }
  __device__ explicit KeyGradientShared(SharedArena& arena)
      : keys(arena.take<float>(S::kKeyTile)),
        values(arena.take<float>(S::kKeyTile)),
        q(arena.take<float>(S::kPairTile)),
        dout(arena.take<float>(S::kPairTile)),
        p(arena.take<float>(S::kWeights)),
        ds(arena.take<float>(S::kWeights)),
        row(arena.take<int64_t>(S::kPairs)),
        head(arena.take<int>(S::kPairs)),
        lo(arena.take<int>(S::kPairs)),
        hi(arena.take<int>(S::kPairs)),
        lse(arena.take<float>(S::kPairs)),
        delta(arena.take<float>(S::kPairs)) {}
};

/// Rows that visit this block's keys: `base` is the logical key of the first, [lo, hi) those that
/// the list has.
struct KeyVisit {
  int64_t row_begin, pairs, base;
  int lo, hi;
};

/// Describes pairs [first, first + kPairs) of a visit, and starts to bring their rows.
template <class S>
__device__ __forceinline__ void start_pairs(const AttentionGradients& g,
                                            const KeyGradientShared<S>& m, const KeyVisit& visit,
                                            int kv_head, int64_t first) {
  const AttentionView& a = g.forward;
  const int group = a.heads / a.kv_heads;
  const int pair = static_cast<int>(threadIdx.x);
  if (pair < S::kPairs) {
    const int64_t index = first + pair;
    const bool exists = index < visit.pairs;
    const int64_t row = visit.row_begin + index / group;
    const int head = kv_head * group + static_cast<int>(index % group);
    m.row[pair] = exists ? row : -1;
    m.head[pair] = head;
    m.lo[pair] = m.hi[pair] = 0;
    if (exists) {
      const int64_t lo = a.first_visible(row) - visit.base, hi = a.visible(row) - visit.base;
      m.lo[pair] = lo > visit.lo ? static_cast<int>(lo < S::kKeys ? lo : S::kKeys) : visit.lo;
      m.hi[pair] = hi < visit.hi ? static_cast<int>(hi > 0 ? hi : 0) : visit.hi;
      m.lse[pair] = a.lse[row * a.heads + head];
      m.delta[pair] = g.delta[row * a.heads + head];
    }
  }
  __syncthreads();
  const auto bring = [&](const float* array, int64_t stride, float* tile) {
    load_tile<S::kPairs, S::kWidth, S::kThreads>(
        tile, a.head_dim, a.loads_are_aligned, [&](int i) -> const float* {
          if (m.row[i] < 0) return nullptr;
          return array + m.row[i] * stride + static_cast<int64_t>(m.head[i]) * a.head_dim;
        });
  };
  bring(a.q, a.q_stride, m.q);
  bring(g.dout, g.dout_stride, m.dout);
}

/// p and ds of the tile's pairs go to shared memory, zeros where a pair does not see a key.
template <class S>
__device__ __forceinline__ void weigh_pairs(const AttentionView& a, const KeyGradientShared<S>& m) {
  float scores[S::kScoreRows][S::kLaneKeys], dp[S::kScoreRows][S::kLaneKeys];
  dot_tile<S::kWidth, S::kThreads>(m.q, m.keys, a.head_dim, scores);
  dot_tile<S::kWidth, S::kThreads>(m.dout, m.values, a.head_dim, dp);
#pragma unroll
  for (int r = 0; r < S::kScoreRows; ++r) {
    const int pair = static_cast<int>(threadIdx.x) / kKeyLanes + r * S::kScoreGroups;
#pragma unroll
    for (int i = 0; i < S::kLaneKeys; ++i) {
      const int key = static_cast<int>(threadIdx.x) % kKeyLanes + i * kKeyLanes;
      float p = 0, ds = 0;
      if (key >= m.lo[pair] && key < m.hi[pair]) {
        p = vexp(scores[r][i] * a.scale - m.lse[pair]);
        ds = score_gradient(p, dp[r][i], m.delta[pair], a.scale);
      }
      m.p[pair * S::kWeightStride + key] = p;
      m.ds[pair * S::kWeightStride + key] = ds;
    }
  }
}

/// dk += ds q and dv += p dout over the tile's pairs in order, for this thread's keys and columns.
template <class S>
__device__ __forceinline__ void add_pairs(const KeyGradientShared<S>& m, int pairs,
                                          float4 (&dk)[S::kSumKeys], float4 (&dv)[S::kSumKeys]) {
  const int column = static_cast<int>(threadIdx.x) % S::kColumnThreads * 4;
  const int key = static_cast<int>(threadIdx.x) / S::kColumnThreads * S::kSumKeys;
#pragma unroll 2
  for (int pair = 0; pair < pairs; ++pair) {
    const float4 q = load4(m.q + pair * S::kStride + column);
    const float4 dout = load4(m.dout + pair * S::kStride + column);
#pragma unroll
    for (int r = 0; r < S::kSumKeys; r += 4) {
      const float4 p = load4(m.p + pair * S::kWeightStride + key + r);
      const float4 ds = load4(m.ds + pair * S::kWeightStride + key + r);
      dv[r] = fma4(p.x, dout, dv[r]);
      dv[r + 1] = fma4(p.y, dout, dv[r + 1]);
      dv[r + 2] = fma4(p.z, dout, dv[r + 2]);
      dv[r + 3] = fma4(p.w, dout, dv[r + 3]);
      dk[r] = fma4(ds.x, q, dk[r]);
      dk[r + 1] = fma4(ds.y, q, dk[r + 1]);
      dk[r + 2] = fma4(ds.z, q, dk[r + 2]);
      dk[r + 3] = fma4(ds.w, q, dk[r + 3]);
    }
  }
}

__device__ __forceinline__ void add_to_array(float* p, float4 sum, bool aligned) {
  store4(p, {p[0] + sum.x, p[1] + sum.y, p[2] + sum.z, p[3] + sum.w}, aligned);
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, 2) key_gradient(AttentionGradients g) {
  const AttentionView& a = g.forward;
  const TreeAttentionKeyPlan::Block block = g.blocks[blockIdx.x / S::kParts];
  const int skipped = static_cast<int>(blockIdx.x % S::kParts) * S::kKeys;
  const int count = min(block.count - skipped, S::kKeys);
  if (count <= 0) return;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int64_t first_row = block.first_row + skipped;
  SharedArena arena;
  const KeyGradientShared<S> m(arena);
  const auto bring = [&](const float* array, float* tile) {
    load_tile<S::kKeys, S::kWidth, S::kThreads>(
        tile, a.head_dim, a.loads_are_aligned, [&](int i) -> const float* {
          if (i >= count) return nullptr;
          return array + (first_row + i) * a.kv_stride + static_cast<int64_t>(kv_head) * a.head_dim;
        });
  };
  bring(a.k, m.keys);
  bring(a.v, m.values);
  float4 dk[S::kSumKeys], dv[S::kSumKeys];
#pragma unroll
  for (int r = 0; r < S::kSumKeys; ++r) dk[r] = dv[r] = {0, 0, 0, 0};
  for (int v = block.visit_begin; v < block.visit_end; ++v) {
    const TreeAttentionKeyPlan::Visit from = g.visits[v];
    const KeyVisit visit{
        from.row_begin,
        static_cast<int64_t>(from.row_end - from.row_begin) * (a.heads / a.kv_heads),
        from.base + skipped, max(from.lo - skipped, 0), min(from.hi - skipped, count)};
    if (visit.lo >= visit.hi) continue;
    for (int64_t first = 0; first < visit.pairs; first += S::kPairs) {
      __syncthreads();  // Nobody reads the tile before.
      start_pairs<S>(g, m, visit, kv_head, first);
      async_wait<0>();
      __syncthreads();
      weigh_pairs<S>(a, m);
      __syncthreads();
      const int64_t left = visit.pairs - first;
      add_pairs<S>(m, static_cast<int>(left < S::kPairs ? left : S::kPairs), dk, dv);
    }
  }
  const int column = static_cast<int>(threadIdx.x) % S::kColumnThreads * 4;
  const int key = static_cast<int>(threadIdx.x) / S::kColumnThreads * S::kSumKeys;
  if (column >= a.head_dim) return;
#pragma unroll
  for (int r = 0; r < S::kSumKeys; ++r) {
    if (key + r >= count) break;
    const int64_t at =
        (first_row + key + r) * g.dkv_stride + static_cast<int64_t>(kv_head) * a.head_dim + column;
    add_to_array(g.dk + at, dk[r], a.stores_are_aligned);
    add_to_array(g.dv + at, dv[r], a.stores_are_aligned);
  }
}

template <class S>
Status launch_key_gradient(const AttentionGradients& g, int64_t blocks, Stream stream) {
  const dim3 grid{static_cast<unsigned>(blocks * S::kParts),
                  static_cast<unsigned>(g.forward.kv_heads)};
  return launch(key_gradient<S>, grid, S::kThreads, KeyGradientShared<S>::bytes(), stream, g);
}

/// Wide heads leave room for fewer keys in the registers of a block.
inline Status launch_key_gradient(const AttentionGradients& g, int64_t blocks, Stream stream) {
  if (g.forward.head_dim <= 64) {
    return launch_key_gradient<KeyGradientShape<64, 64, 32, 128>>(g, blocks, stream);
  }
  if (g.forward.head_dim <= 128) {
    return launch_key_gradient<KeyGradientShape<128, 32, 32, 128>>(g, blocks, stream);
  }
  return launch_key_gradient<KeyGradientShape<256, 16, 16, 128>>(g, blocks, stream);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
