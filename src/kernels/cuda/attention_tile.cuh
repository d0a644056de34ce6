#pragma once
// The tiles that the kernels of tree attention share: rows of queries or keys in shared memory, and
// their products on registers. Every element of a product is one chain of fmaf, so the shape of a
// tile decides speed and never a bit.

#include <cstring>

#include "cuda/device.cuh"
#include "temper/kernels/tree_attention.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// Logical keys in a block: kKeyBlock of the CPU, a part of the exactness contract.
inline constexpr int kBlockKeys = 64;
/// Lanes that share the keys of a block: lane j has keys j, j + 16, ..., as the CPU's virtual
/// lanes.
inline constexpr int kKeyLanes = 16;

/// TreeAttentionArgs as kernels read them.
struct AttentionView {
  const float *q, *k, *v;
  int64_t q_stride, kv_stride;
  float* out;
  int64_t out_stride;
  float* lse;
  const KeySpan* spans;
  const TreeAttentionArgs::Query* queries;
  int64_t rows;
  int64_t window;
  int heads, kv_heads, head_dim;
  float scale;
  bool loads_are_aligned;   // Rows of q, k and v start at multiples of 16 bytes,
  bool stores_are_aligned;  // and so do rows of the outputs.

  __device__ int64_t visible(int64_t row) const { return queries[row].visible; }
  __device__ int64_t first_visible(int64_t row) const {
    const int64_t first = visible(row) - window;
    return window > 0 && first > 0 ? first : 0;
  }
};

inline bool aligned16(const float* p, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride % 4 == 0;
}

inline AttentionView view_of(const TreeAttentionArgs& a) {
  return {a.q,
          a.k,
          a.v,
          a.q_stride,
          a.kv_stride,
          a.out,
          a.out_stride,
          a.lse,
          a.spans.data(),
          a.queries.data(),
          static_cast<int64_t>(a.queries.size()),
          a.window,
          a.heads,
          a.kv_heads,
          a.head_dim,
          a.scale,
          aligned16(a.q, a.q_stride) && aligned16(a.k, a.kv_stride) && aligned16(a.v, a.kv_stride),
          aligned16(a.out, a.out_stride)};
}

/// The expectation that the sizes break, or null. Tables lie on the device: callers check those.
inline const char* broken_expectation(const TreeAttentionArgs& a) {
  if (a.head_dim < 8 || a.head_dim > 256 || a.head_dim % 8 != 0) {
    return "[tree_attention] expected head_dim to be a multiple of 8 in [8, 256]";
  }
  if (a.kv_heads < 1 || a.heads < 1 || a.heads % a.kv_heads != 0 || a.kv_heads > 65535) {
    return "[tree_attention] expected 1 <= kv_heads < 65536 and kv_heads to divide heads";
  }
  if (!(a.scale > 0) || a.window < 0) {
    return "[tree_attention] expected scale > 0 and window >= 0";
  }
  if (a.queries.size() > 0x7fffffff) return "[tree_attention] expected fewer than 2^31 rows";
  return nullptr;
}

/// Four floats at a multiple of 16 bytes.
__device__ __forceinline__ float4 load4(const float* p) {
#ifdef __CUDACC__
  return *reinterpret_cast<const float4*>(p);
#else
  float4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
#endif
}

__device__ __forceinline__ void store4(float* p, float4 v, bool aligned) {
#ifdef __CUDACC__
  if (aligned) {
    *reinterpret_cast<float4*>(p) = v;
    return;
  }
#endif
  (void)aligned;
  p[0] = v.x, p[1] = v.y, p[2] = v.z, p[3] = v.w;
}

__device__ __forceinline__ float4 fma4(float a, float4 b, float4 c) {
  return {fmaf(a, b.x, c.x), fmaf(a, b.y, c.y), fmaf(a, b.z, c.z), fmaf(a, b.w, c.w)};
}
__device__ __forceinline__ float4 mul4(float4 a, float b) {
  return {a.x * b, a.y * b, a.z * b, a.w * b};
}

/// Distance of a tile's rows in floats. An odd number of 16 bytes: neighbouring rows start at
/// different banks.
template <int kWidth>
inline constexpr int kTileStride = kWidth + 4;

/// Starts to bring `kRows` rows of head_dim floats to a tile; row_of(i) points to row i, null is a
/// row of zeros. Ends with async_commit; the tile is there after async_wait and a barrier.
template <int kRows, int kWidth, int kThreads, class RowOf>
__device__ __forceinline__ void load_tile(float* tile, int head_dim, bool aligned,
                                          const RowOf& row_of) {
  constexpr int kChunks = kWidth / 4;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, column = i % kChunks * 4;
    if (column >= head_dim) continue;
    float* to = tile + row * kTileStride<kWidth> + column;
    const float* from = row_of(row);
    if (from == nullptr) {
      store4(to, {0, 0, 0, 0}, true);
    } else if (aligned) {
      async_copy16(to, from + column);
    } else {
      for (int j = 0; j < 4; ++j) to[j] = from[column + j];
    }
  }
  async_commit();
}

/// sums[r][i] = row_(group + r groups) . key_(lane + 16 i), where groups of 16 threads take rows in
/// turn: one chain over ascending dimension each.
template <int kWidth, int kThreads, int kRows, int kKeys>
__device__ __forceinline__ void dot_tile(const float* rows, const float* keys, int head_dim,
                                         float (&sums)[kRows][kKeys]) {
  constexpr int kGroups = kThreads / kKeyLanes;
  constexpr int kStride = kTileStride<kWidth>;
  rows += threadIdx.x / kKeyLanes * kStride;
  keys += threadIdx.x % kKeyLanes * kStride;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int i = 0; i < kKeys; ++i) sums[r][i] = 0;
  }
#pragma unroll 2
  for (int d = 0; d < head_dim; d += 4) {
    float4 key[kKeys];
#pragma unroll
    for (int i = 0; i < kKeys; ++i) key[i] = load4(keys + i * kKeyLanes * kStride + d);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float4 x = load4(rows + r * kGroups * kStride + d);
#pragma unroll
      for (int i = 0; i < kKeys; ++i) {
        float sum = fmaf(x.x, key[i].x, sums[r][i]);
        sum = fmaf(x.y, key[i].y, sum);
        sum = fmaf(x.z, key[i].z, sum);
        sums[r][i] = fmaf(x.w, key[i].w, sum);
      }
    }
  }
}

/// (row, head) pairs that a block attends together: `rows` rows with equal span lists times `heads`
/// query heads of one key/value head; pair p is row row + p / heads and head head + p % heads.
struct PairTile {
  int64_t row;
  int rows;
  int head, heads;
  int kv_head;

  __device__ int pairs() const { return rows * heads; }
  __device__ int64_t row_of(int pair) const { return row + pair / heads; }
  __device__ int head_of(int pair) const { return head + pair % heads; }
};

/// How a grid covers all pairs: block (x, y) has rows_per_block rows and the heads of part y.
struct PairGrid {
  int rows_per_block;
  int heads_per_block;
  int parts;  // Blocks that share the query heads of a key/value head.
};

/// Blocks of at most `most` pairs. Where span lists are short, blocks that fit them walk less.
inline PairGrid plan_pairs(const AttentionView& a, int most, int64_t rows_per_list) {
  const int group = a.heads / a.kv_heads;
  PairGrid g{};
  g.heads_per_block = group < most ? group : most;
  g.parts = (group + g.heads_per_block - 1) / g.heads_per_block;
  g.rows_per_block = most / g.heads_per_block;
  if (rows_per_list > 0 && g.rows_per_block > rows_per_list) {
    g.rows_per_block = static_cast<int>(rows_per_list);
  }
  return g;
}

inline dim3 blocks_of(const AttentionView& a, const PairGrid& g) {
  return {static_cast<unsigned>((a.rows + g.rows_per_block - 1) / g.rows_per_block),
          static_cast<unsigned>(a.kv_heads * g.parts)};
}

/// Calls `body(tile)` for each run of equal span lists among this block's rows.
template <class Body>
__device__ __forceinline__ void for_runs(const AttentionView& a, const PairGrid& g,
                                         const Body& body) {
  const int group = a.heads / a.kv_heads;
  const int kv_head = static_cast<int>(blockIdx.y) / g.parts;
  const int skipped = static_cast<int>(blockIdx.y) % g.parts * g.heads_per_block;
  const int heads = min(g.heads_per_block, group - skipped);
  // Later rows see more keys: they come first.
  int64_t row = static_cast<int64_t>(gridDim.x - 1 - blockIdx.x) * g.rows_per_block;
  int64_t last = row + g.rows_per_block;
  if (last > a.rows) last = a.rows;
  while (row < last) {
    int64_t end = row + 1;
    while (end < last && a.queries[end].span_begin == a.queries[row].span_begin &&
           a.queries[end].span_end == a.queries[row].span_end) {
      ++end;
    }
    body(PairTile{row, static_cast<int>(end - row), kv_head * group + skipped, heads, kv_head});
    row = end;
  }
}

/// Finds the array rows of a list's keys in ascending order, without ever passing its end.
class KeyCursor {
 public:
  __device__ explicit KeyCursor(const KeySpan* first) : span_(first) {}
  /// `key` is below the list's length and not below that of the call before.
  __device__ int64_t row(int64_t key) {
    while (key - start_ >= span_->count) {
      start_ += span_->count;
      ++span_;
    }
    return span_->first_row + (key - start_);
  }

 private:
  const KeySpan* span_;
  int64_t start_ = 0;
};

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
