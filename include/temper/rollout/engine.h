#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "temper/kernels/sampling.h"
#include "temper/nn/models.h"

namespace temper {

/// How completions are sampled.
struct RolloutConfig {
  double temperature = 1.0;
  int64_t top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  int64_t max_new_tokens = 64;
  std::vector<std::string> stop = {};
  int64_t max_sequences = 64;
  int64_t prefill_tokens = 512;
  int64_t kv_memory_mb = 1024;

  template <class V>
  void visit(V&& v) {
    v(temperature, "temperature", "Divides the logits; 0 is greedy (evaluation only).");
    v(top_k, "top_k", "Keep the k most likely tokens; 0 keeps all.");
    v(top_p, "top_p", "Keep the smallest set with this probability mass, in (0, 1].");
    v(min_p, "min_p",
      "Drop tokens below min_p times the most likely one's probability, in [0, 1).");
    v(repetition_penalty, "repetition_penalty", "Above 1 makes tokens seen before less likely.");
    v(max_new_tokens, "max_new_tokens", "Longest completion in tokens; a longer one is truncated.");
    v(stop, "stop", "Texts that end a completion when they appear in it.");
    v(max_sequences, "max_sequences", "Completions decoded at a time; others wait for a place.");
    v(prefill_tokens, "prefill_tokens", "Most prompt tokens computed in one forward.");
    v(kv_memory_mb, "kv_memory_mb", "Bound on the memory of keys and values, in MiB.");
  }
  /// @throws Error naming the key that is out of range.
  void validate() const;
  [[nodiscard]] kernels::SamplingParams sampling() const;
};

enum class Finish {
  kEos,     ///< An end-of-sequence id was sampled; it is the last id.
  kStop,    ///< A stop text appeared.
  kLength,  ///< `max_new_tokens` reached: truncated.
};

/// One sampled completion: token ids as sampled, never text that was tokenized again.
struct Sample {
  int32_t prompt = 0;                   ///< Index into the request's prompts.
  std::vector<int32_t> ids;             ///< [T]
  std::vector<float> logprobs;          ///< [T] of the untruncated policy at the temperature, nats.
  std::vector<float> sampled_logprobs;  ///< [T] of the distribution sampled from, nats.
  std::vector<float> log_kept_mass;     ///< [T] log of the policy mass left by the truncation.
  std::vector<float> entropy;           ///< [T] of the untruncated policy, nats.
  Finish finish = Finish::kLength;
  std::string text;  ///< All ids decoded, special tokens skipped; a stop text is still in it.
};

struct RolloutRequest {
  std::vector<std::vector<int32_t>> prompts;  ///< Token ids, none empty.
  int64_t group_size = 1;                     ///< Completions a prompt.
  uint64_t seed = 0;
  uint32_t step = 0;  ///< Part of the random key, with the sequence and the position.
};

/// What a rollout did.
struct RolloutStats {
  int64_t prompt_tokens = 0;      ///< Prompt tokens computed (each prompt once a group).
  int64_t completion_tokens = 0;  ///< Tokens sampled.
  int64_t recomputed_tokens = 0;  ///< Computed again after a preemption.
  int64_t preemptions = 0;
  int64_t forwards = 0;  ///< Passes through the model.
};

/// Samples completions with continuous batching: sequences enter and leave while others run, a
/// group's prompt is computed once, and memory stays within `kv_memory_mb` (the youngest sequences
/// give way and are computed again later).
/// Determinism: a completion depends on the weights, its prompt, the sampling settings and (seed,
/// step, sequence) alone; sequence = prompt index * group size + index in its group. Batch
/// composition, memory, preemption and threads cannot change it.
class RolloutEngine {
 public:
  RolloutEngine(CausalLM& lm, const ModelText& text, RolloutConfig config);

  /// Called with (sequence, its sample so far) after every token; streaming and progress use it.
  /// A sequence's tokens come in order. The sample's `text` is complete only when `generate`
  /// returns.
  using OnToken = std::function<void(int64_t, const Sample&)>;

  /// Completions in order: group by group. @throws Error for an empty or too long prompt, or when
  /// `kv_memory_mb` cannot hold even one prompt with one completion, or when log-probabilities are
  /// not finite.
  [[nodiscard]] std::vector<Sample> generate(const RolloutRequest& request,
                                             const OnToken& on_token = {});

  /// Of the last `generate`.
  [[nodiscard]] const RolloutStats& stats() const { return stats_; }
  [[nodiscard]] const RolloutConfig& config() const { return config_; }

 private:
  CausalLM& lm_;
  const ModelText& text_;
  RolloutConfig config_;
  RolloutStats stats_;
};

}  // namespace temper
