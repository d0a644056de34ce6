#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// Rows [first_row, first_row + count) of the key and value arrays.
struct KeySpan {
  int64_t first_row;
  int64_t count;
};

/// Causal softmax attention over a tree of segments. A query's keys are a list of spans in logical
/// order: those of its ancestors, its own run last; it sees the first `visible` of them. Spans may
/// be pages of a cache, whole segments of a training batch, or both. Arrays are fp32; a row holds
/// its heads one after the other, rows are `stride` floats apart. Query head i reads key/value head
/// i / (heads / kv_heads).
struct TreeAttentionArgs {
  struct Query {
    int32_t span_begin;  ///< The row's span list is spans[span_begin, span_end). Consecutive rows
    int32_t span_end;    ///< with equal ranges (a segment) share every key block that is loaded.
    int32_t visible;     ///< Keys seen, itself included: at least 1, at most the keys in the list.
    int32_t position;    ///< Position in the text; not read here.
  };
  const float* q;  ///< [rows, heads * head_dim], after rope.
  int64_t q_stride;
  const float* k;  ///< [any, kv_heads * head_dim], after rope.
  const float* v;  ///< [any, kv_heads * head_dim]
  int64_t kv_stride;
  float* out;  ///< [rows, heads * head_dim]; must not overlap the inputs.
  int64_t out_stride;
  float*
      lse;  ///< [rows, heads] log-sum-exp of the scaled scores in nats, for the backward; or null.
  std::span<const KeySpan> spans;  ///< All lists, flattened.
  std::span<const Query> queries;  ///< [rows]
  int heads;
  int kv_heads;    ///< Divides heads.
  int head_dim;    ///< A multiple of 8, at most 256.
  float scale;     ///< Multiplies the scores, usually head_dim^-1/2. Above 0.
  int64_t window;  ///< A query sees only its last `window` visible keys, itself included; 0 = all.
};

/// out = softmax(scale q k^T) v, online over blocks of 64 logical keys (Dao 2023,
/// FlashAttention-2).
/// @throws Error if a size, a span list or a visible count is invalid.
/// @note The bits of a row depend on its query and its logical key list alone: not on how the list
/// is cut into spans, on the other rows, or on the number of threads. Keys that a row does not see
/// are never added, not even with weight zero. AVX2 and AVX-512 agree to the bit.
void tree_attention(const TreeAttentionArgs& args);

/// Gradients of `tree_attention`. `forward` holds the forward's arguments with `out` and `lse` as
/// it left them.
struct TreeAttentionBackwardArgs {
  TreeAttentionArgs forward;
  const float* dout;  ///< [rows, heads * head_dim]
  int64_t dout_stride;
  float* dq;  ///< [rows, heads * head_dim], overwritten.
  int64_t dq_stride;
  float*
      dk;  ///< As k: added to. Rows that several segments share receive the sum over all of them.
  float* dv;  ///< As v: added to.
  int64_t dkv_stride;
};

/// @throws Error as the forward does, or if lse is null.
/// @note Same bits at any thread count: a key row is owned by one task, which adds the queries'
/// contributions in ascending row order.
void tree_attention_backward(const TreeAttentionBackwardArgs& args);

/// Which rows see which keys, turned around for the gradients of keys and values on a GPU: every
/// key row of some list stands in exactly one block.
struct TreeAttentionKeyPlan {
  /// Rows [row_begin, row_end) have equal lists, and some of them see keys of the block.
  struct Visit {
    int32_t row_begin;
    int32_t row_end;
    int64_t base;  ///< Logical key of the block's first row in that list; may be negative.
    int32_t lo;    ///< Rows [lo, hi) of the block belong to the list there.
    int32_t hi;
  };
  /// Rows [first_row, first_row + count) of the key array, at most 64.
  struct Block {
    int64_t first_row;
    int32_t count;
    int32_t visit_begin;  ///< Its visits are visits[visit_begin, visit_end), rows ascending.
    int32_t visit_end;
  };
  std::vector<Block> blocks;
  std::vector<Visit> visits;
};

/// Reads spans, queries and window, which lie on the host here, and no array.
/// @throws Error as `tree_attention` does.
[[nodiscard]] TreeAttentionKeyPlan plan_tree_attention_keys(const TreeAttentionArgs& args);

namespace cuda {

/// As the CPU's, with its bits in `out` and `lse`, also where no row needs the work of another:
/// decoding, prefill and training are one kernel. Arrays, spans and queries lie on the device,
/// which alone reads them, so that a captured graph follows their contents; invalid spans or counts
/// are not noticed. Rows of q, k and v that start at multiples of 16 bytes are read faster.
/// @param rows_per_list About how many neighbouring rows have equal span lists: 1 while decoding, a
/// segment's length in training, 0 for many. Only speed depends on it.
[[nodiscard]] Status tree_attention(const TreeAttentionArgs& args, int64_t rows_per_list,
                                    Stream stream);

/// What the backward needs on the device besides its arguments.
struct TreeAttentionWorkspace {
  std::span<const TreeAttentionKeyPlan::Block> blocks;  ///< Of `plan_tree_attention_keys`.
  std::span<const TreeAttentionKeyPlan::Visit> visits;
  float* delta;  ///< [rows, heads]
};

/// As the CPU's. No atomics; every sum has the CPU's order, so that its bits do not depend on the
/// launch, and equal the CPU's but for the sign of zeros that underflow leaves.
[[nodiscard]] Status tree_attention_backward(const TreeAttentionBackwardArgs& args,
                                             const TreeAttentionWorkspace& workspace,
                                             Stream stream);

}  // namespace cuda

}  // namespace temper::kernels
