#pragma once

#include <cstdint>
#include <span>

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

}  // namespace temper::kernels
