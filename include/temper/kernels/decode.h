#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "temper/kernels/sampling.h"
#include "temper/kernels/tree_attention.h"

namespace temper::kernels::cuda {

// Decoding for CUDA graphs: one token for each of a fixed number of sequences, from embedding to
// sampled token and on to the next token's state, with no word from the host between. Everything
// lies at addresses that do not change, so a captured step can be replayed as it is.

/// Weights and cache of one layer; device pointers.
struct DecodeLayer {
  const float* norm_in = nullptr;  ///< [hidden]
  PackedWeight qkv;                ///< [(heads + 2 kv_heads) head_dim, hidden]: q, k, v.
  const float* qkv_bias = nullptr;
  const float* q_norm = nullptr;  ///< [head_dim], or null: queries and keys are not normed.
  const float* k_norm = nullptr;  ///< [head_dim], as q_norm.
  PackedWeight o;                 ///< [hidden, heads head_dim]
  const float* o_bias = nullptr;
  const float* norm_mid = nullptr;  ///< [hidden]
  PackedWeight gate_up;             ///< [2 intermediate, hidden]: gate, up.
  const float* gate_up_bias = nullptr;
  PackedWeight down;  ///< [hidden, intermediate]
  const float* down_bias = nullptr;
  float* keys = nullptr;    ///< [slots, kv_heads head_dim], after rope.
  float* values = nullptr;  ///< As keys.
  int64_t window = 0;       ///< Of tree_attention.
};

/// A model of the Llama kind.
struct DecodeModel {
  std::span<const DecodeLayer> layers;  ///< On the host.
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate = 0;
  float eps = 0;
  PackedWeight embedding;             ///< [vocabulary, hidden]
  const float* final_norm = nullptr;  ///< [hidden]
  PackedWeight head;                  ///< [vocabulary, hidden]
  int64_t allowed = 0;                ///< Of linear_sample.
  int64_t support = 0;                ///< Of linear_sample.
  float softcap = 0;                  ///< Of linear_sample.
  const float* rope_cos = nullptr;    ///< [positions, head_dim / 2], of a RopeTable.
  const float* rope_sin = nullptr;    ///< [positions, head_dim / 2]
};

/// What the next draws of a rollout are keyed by; see `keyed_random`. Purpose: kSample.
struct DecodeKey {
  uint64_t seed;
  uint32_t step;
};

/// One sequence; the host writes it when the sequence enters, the device from then on.
struct DecodeSequence {
  uint64_t sequence;   ///< Its number in the key of a draw.
  int32_t drawn;       ///< Tokens drawn so far.
  int32_t limit;       ///< Tokens to draw at most.
  int32_t length;      ///< Rows of its own in the cache, with the token that enters now: >= 1.
  int32_t page_begin;  ///< Its pages are pages[page_begin, ...), enough for `limit` more rows.
  int32_t active;      ///< 1; 0 once it has drawn a stop id or `limit` tokens.
  int32_t unused;
};

/// The rows of a batch, on the device. A row needs room in `spans` for a span a page more than it
/// has when it enters.
struct DecodeRows {
  int64_t batch = 0;
  int32_t* ids = nullptr;                       ///< [batch] token that enters now.
  int32_t* positions = nullptr;                 ///< [batch] its position, in the rope table.
  int64_t* slots = nullptr;                     ///< [batch] its row in the cache.
  TreeAttentionArgs::Query* queries = nullptr;  ///< [batch] keys that it sees, itself last.
  KeySpan* spans = nullptr;                     ///< [span_count] of all rows.
  int64_t span_count = 0;
  const int32_t* pages = nullptr;          ///< Pages of the cache, of all rows.
  DecodeSequence* sequences = nullptr;     ///< [batch]
  const SamplingParams* params = nullptr;  ///< [batch], repetition_penalty 1.
  double* uniforms = nullptr;              ///< [batch] for the token that is drawn now.
  const DecodeKey* key = nullptr;          ///< One.
  const int32_t* stop_ids = nullptr;       ///< [stop_count]
  int64_t stop_count = 0;
  int64_t page_rows = 0;            ///< Rows of the cache in a page.
  SampledToken* sampled = nullptr;  ///< [batch] what this step drew.
  SampledToken* log = nullptr;      ///< [batch, log_rows] all draws of a sequence in order.
  int64_t log_rows = 0;             ///< At least every `limit`.
};

/// Intermediate results, in one piece of device memory.
struct DecodeBuffers {
  float* x = nullptr;          ///< [batch, hidden] the residual stream.
  float* h = nullptr;          ///< [batch, hidden] normed.
  float* qkv = nullptr;        ///< [batch, (heads + 2 kv_heads) head_dim]
  float* q = nullptr;          ///< [batch, heads head_dim] for q_norm.
  float* k = nullptr;          ///< [batch, kv_heads head_dim] for k_norm.
  float* attention = nullptr;  ///< [batch, heads head_dim]
  float* gate_up = nullptr;    ///< [batch, 2 intermediate]
  float* gated = nullptr;      ///< [batch, intermediate]
  float* logits = nullptr;     ///< linear_sample_workspace(batch, vocabulary)
};
/// Bytes of the memory that `place_decode_buffers` divides.
[[nodiscard]] size_t decode_buffer_bytes(const DecodeModel& model, int64_t batch);
/// @param memory  At a multiple of 256 bytes.
[[nodiscard]] DecodeBuffers place_decode_buffers(const DecodeModel& model, int64_t batch,
                                                 void* memory);

struct DecodeStepArgs {
  DecodeModel model;
  DecodeRows rows;
  DecodeBuffers buffers;
};

/// Enqueues a whole step: embedding; for each layer norm, qkv, norms of q and k, rope, the new row
/// of the cache, attention, output and residual, norm, gated MLP and residual; final norm; a draw;
/// then `decode_advance`. Each op is the public one and has its bits, so a step equals the same
/// step of the CPU wherever its ops do (Product::kFma). Nothing waits or allocates.
Status decode_step(const DecodeStepArgs& args, Stream stream);

/// The end of a step: each active row's draw is logged and becomes the token that enters next, its
/// position, keys, slot and uniform with it. A row that stopped stands still and is computed along.
Status decode_advance(const DecodeRows& rows, Stream stream);

/// `decode_step` as a CUDA graph. Captured once for a batch size and replayed: a step is then one
/// launch instead of about twelve a layer. All that `args` points to may change its contents, not
/// its address or size: capture again after that.
class DecodeGraph {
 public:
  DecodeGraph();
  DecodeGraph(const DecodeGraph&) = delete;
  DecodeGraph& operator=(const DecodeGraph&) = delete;
  ~DecodeGraph();

  /// Captures a step on a stream of its own. Replaces an earlier graph, which must not be running.
  Status capture(const DecodeStepArgs& args);
  /// Replays a step. An error if nothing was captured.
  Status launch(Stream stream);
  /// `launch`, after a `capture` if there is no graph or it has another batch size.
  Status run(const DecodeStepArgs& args, Stream stream);
  /// Batch size of the graph; 0: none.
  [[nodiscard]] int64_t batch() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper::kernels::cuda
