// Bytes of weights and activations: the allocations of src/nn and src/kernels/cpu, counted.
#include "plan_memory.h"

#include <algorithm>

#include "temper/kernels/linear.h"
#include "temper/kernels/linear_logprob.h"

namespace temper::planning {
namespace {

constexpr uint64_t kFloat = sizeof(float);

/// What core/memory.h takes for a buffer: whole huge pages from 4 MiB on.
uint64_t buffer(int64_t floats) {
  constexpr uint64_t kHugePage = uint64_t{2} << 20;
  const uint64_t bytes = static_cast<uint64_t>(std::max<int64_t>(0, floats)) * kFloat;
  const uint64_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  return (bytes + alignment - 1) / alignment * alignment;
}

/// Widths of a layer's rows, in floats.
struct Widths {
  int64_t hidden, q, kv, qkv, inner, heads, kv_heads;
  bool qk_norm;

  explicit Widths(const ModelConfig& c)
      : hidden(c.hidden_size),
        q(c.heads * c.head_dim),
        kv(c.kv_heads * c.head_dim),
        qkv(q + 2 * kv),
        inner(c.intermediate_size),
        heads(c.heads),
        kv_heads(c.kv_heads),
        qk_norm(c.qk_norm) {}
};

/// A `LayerTape` of `rows` rows.
uint64_t layer_tape(const Widths& w, int64_t rows) {
  uint64_t bytes = 2 * buffer(rows * w.hidden) + 2 * buffer(rows) + buffer(rows * w.qkv) +
                   buffer(rows * w.q) + buffer(rows * w.heads) + buffer(rows * 2 * w.inner);
  if (w.qk_norm) {
    bytes += buffer(rows * w.q) + buffer(rows * w.kv) + buffer(rows * w.heads) +
             buffer(rows * w.kv_heads);
  }
  return bytes;
}

}  // namespace

int64_t Weight::elements() const { return matrix ? kernels::panel_elements(n, k) : n; }

std::vector<Weight> weights_of(const ModelConfig& c, bool lm_head) {
  const Widths w(c);
  const auto matrix = [](int64_t n, int64_t k, int64_t copies, int64_t part) {
    return Weight{n, k, true, copies, part};
  };
  const auto vector = [](int64_t n, int64_t copies) { return Weight{n, 1, false, copies, n}; };
  const Weight vocabulary{c.vocab_size, w.hidden, true, 1, c.vocab_size, true};
  std::vector<Weight> out{vocabulary,
                          vector(w.hidden, 2 * c.layers + 1),
                          matrix(w.qkv, w.hidden, c.layers, w.q),
                          matrix(w.hidden, w.q, c.layers, w.hidden),
                          matrix(2 * w.inner, w.hidden, c.layers, w.inner),
                          matrix(w.hidden, w.inner, c.layers, w.hidden)};
  if (c.qkv_bias) out.push_back(vector(w.qkv, c.layers));
  if (c.qk_norm) out.push_back(vector(c.head_dim, 2 * c.layers));
  if (c.o_bias) out.push_back(vector(w.hidden, c.layers));
  if (c.mlp_bias) {
    out.push_back(vector(2 * w.inner, c.layers));
    out.push_back(vector(w.hidden, c.layers));
  }
  if (lm_head && !c.tied) out.push_back(vocabulary);
  return out;
}

WeightBytes weight_bytes(const std::vector<Weight>& weights, WeightDType dtype,
                         Trainable trainable, int64_t moment_bytes) {
  const bool trains = trainable == Trainable::kYes;
  WeightBytes b;
  for (const Weight& w : weights) {
    const auto elements = static_cast<uint64_t>(w.elements() * w.copies);
    const bool rounded = w.matrix && dtype != WeightDType::kFloat32;
    if (trains || !rounded) b.masters += kFloat * elements;
    if (rounded && dtype == WeightDType::kQ4) {
      // Layers in 4 bits with minimums, a vocabulary in 8 without, unless the file has others.
      const auto scales = static_cast<uint64_t>(kernels::block_elements(w.n, w.k) * w.copies);
      const bool vocabulary = w.vocabulary;
      b.copies += (vocabulary ? elements : elements / 2) + scales * (vocabulary ? 2 : 4);
    } else if (rounded && dtype == WeightDType::kInt8) {
      const auto scales = static_cast<uint64_t>(kernels::scale_elements(w.n, w.k) * w.copies);
      b.copies += elements + kFloat * scales;
    } else if (rounded) {
      b.copies += 2 * elements;
    }
    if (trains) b.gradients += kFloat * elements;
    if (trains) b.moments += 2 * static_cast<uint64_t>(moment_bytes) * elements;
  }
  return b;
}

ActivationBytes activation_bytes(const ModelConfig& config, const Rows& rows, bool checkpoint) {
  const Widths w(config);
  ActivationBytes b;
  const int64_t n = rows.train;
  const int64_t most = std::max(n, rows.forward);
  if (n > 0) {
    const auto layers = static_cast<uint64_t>(config.layers);
    b.tape = layers * (checkpoint ? buffer(n * w.hidden) : layer_tape(w, n));
    b.tape += 2 * buffer(n * w.hidden) + buffer(n);  // last, hidden, rstd_last
    // a, b, dqkv, dx of the scratch, and the gradient of the hidden rows.
    b.working += buffer(n * 2 * w.inner) + buffer(n * w.qkv) + 2 * buffer(n * w.hidden);
    if (checkpoint) b.working += buffer(n * w.hidden);  // out
  }
  // h and wide of the scratch; the one layer that forwards without a tape share; the result.
  b.working += buffer(most * w.hidden) + buffer(most * w.inner);
  if (n > 0 || w.qk_norm) b.working += buffer((w.qk_norm ? most : n) * w.q);
  const int64_t layer_rows = checkpoint ? most : rows.forward;
  if (layer_rows > 0) b.working += layer_tape(w, layer_rows);
  if (rows.forward > 0) b.working += buffer(rows.forward * w.hidden);
  return b;
}

uint64_t head_bytes(const ModelConfig& config, const Rows& rows) {
  const int64_t padded = kernels::panel_count(config.vocab_size) * kernels::kPanel;
  const int64_t tile = std::min(kernels::kHeadTileRows, rows.scored);
  // Rows with their gradients, of all that are scored and of one tile; max and log_sum.
  return buffer(tile * (padded + 16)) + 2 * buffer(rows.scored * config.hidden_size) +
         2 * buffer(tile * config.hidden_size) + 2 * buffer(rows.scored);
}

uint64_t word_bytes(const ModelConfig& config, const Rows& rows, bool lm_head) {
  const Widths w(config);
  const auto words = [](int64_t n, int64_t width) {
    return static_cast<uint64_t>(n * ((width / 2 + 15) / 16 | 1) * 16) * sizeof(uint32_t);
  };
  const int64_t most = std::max(rows.train, rows.forward);
  const int64_t widest = rows.train > 0 ? std::max({2 * w.inner, w.qkv, w.hidden})
                                        : std::max({w.inner, w.q, w.hidden});
  const uint64_t head = lm_head && rows.train > 0
                            ? words(std::min(kernels::kHeadTileRows, rows.scored), config.vocab_size)
                            : 0;
  return std::max(words(most, widest), head);
}

Rows largest_micro_batch(const PlanInput& input) {
  const PlanBatch& b = input.batch;
  const int64_t tokens = input.rollout.max_new_tokens;
  // A value of the state behind the last token takes a row that predicts nothing.
  const int64_t completion = tokens - (input.value == ValuePlacement::kNone ? 1 : 0);
  const int64_t prompts = (b.prompts + b.minibatches - 1) / b.minibatches;
  // Completions that end early let more groups in, so the limit itself is the bound; one completion
  // is always taken.
  const int64_t all = prompts * (b.prompt_tokens + b.group_size * completion);
  const int64_t rows = std::max(std::min(all, b.micro_batch_tokens), b.prompt_tokens + completion);
  return {rows, 0, std::min(rows, prompts * b.group_size * tokens)};
}

int64_t rollout_rows(const PlanInput& input) {
  const PlanBatch& b = input.batch;
  const int64_t prompts = std::max(b.prompts, b.held_out_prompts);
  const int64_t sequences = std::max(b.prompts * b.group_size, b.held_out_prompts);
  return std::min(input.rollout.prefill_tokens, prompts * b.prompt_tokens) +
         std::min(input.rollout.max_sequences, sequences);
}

}  // namespace temper::planning
