#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/core/torch.h"

namespace temper {

/// Counts of the whole optimizer step, over every micro-batch and rank, taken before the first
/// backward. A loss divides by these, so 1 x 8 micro-batches equal 8 x 1.
struct StepTotals {
  double tokens = 0;                  ///< Active completion tokens (mask = 1).
  double sequences = 0;               ///< Completions, fully masked ones included.
  int64_t max_completion_tokens = 0;  ///< The configured limit (Dr. GRPO's divisor).
  /// Tokens whose entropy (nats) is below this are left out of the policy term; -inf: none.
  double entropy_threshold = -std::numeric_limits<double>::infinity();
  /// Active tokens at or above that threshold (the divisor of the entropy bonus); negative: all.
  double entropy_tokens = -1;
  /// Factor of the loss's `kl_coef`, by which a controller steers it (`KlController`).
  double kl_scale = 1;
};

/// Completion tokens of one micro-batch, flat: token t of completion i stands where `sequence` is i,
/// in order. Tensors share one floating dtype and device; log-probs and entropy are in nats.
struct RolloutBatch {
  at::Tensor logprobs;      ///< [N] current policy, differentiable.
  at::Tensor entropy;       ///< [N] of the current policy, differentiable, or undefined.
  at::Tensor old_logprobs;  ///< [N] of the policy that sampled, no gradient.
  at::Tensor ref_logprobs;  ///< [N] of the reference, no gradient, or undefined.
  at::Tensor advantages;    ///< [B], or [N] when given per token.
  at::Tensor mask;          ///< [N] 1 = trained on, 0 = not.
  at::Tensor sequence;      ///< [N] int64 in [0, B).
  int64_t sequences = 0;    ///< B.
  StepTotals totals;
};

/// Sums over a whole step's answers, without gradient, for losses that compare answers across
/// micro-batches. Vectors have an entry an answer of the step, in its order.
struct AnswerSums {
  std::vector<double> logprobs;      ///< Sum of an answer's active log-probs under the policy.
  std::vector<double> ref_logprobs;  ///< The same under the reference; empty: there is none.
};

/// Counts of a whole optimizer step over given answers, over every micro-batch and rank: what its
/// losses divide by.
struct AnswerTotals {
  double answers = 0;        ///< All of them.
  double pairs = 0;          ///< answers / 2 where answers are pairs.
  double tokens = 0;         ///< Active answer tokens.
  double chosen_tokens = 0;  ///< Active answer tokens of the preferred sides.
  double prompt_tokens = 0;  ///< Those that `AnswerBatch::prompt_logprobs` of the step hold.
  /// Baseline of unpaired losses: KTO's z0, BCO's delta.
  double baseline = 0;
  const AnswerSums* sums = nullptr;  ///< For losses that ask for it, else null.
  int64_t first_answer = 0;        ///< Of the micro-batch, as an index into `sums`.
};

/// Tokens of given answers of one micro-batch, flat: token t of answer i stands where `sequence` is
/// i, in order. In pairs answer 2 j is the preferred one of pair j and 2 j + 1 the other. Tensors
/// share one floating dtype and device; log-probs are in nats at temperature 1.
struct AnswerBatch {
  at::Tensor logprobs;      ///< [N] current policy, differentiable.
  at::Tensor ref_logprobs;  ///< [N] of the reference, no gradient, or undefined.
  /// [N] the policy's log-probs at temperature 1/2, no gradient, or undefined. With p at 1 and p2
  /// at 1/2, log sum_v p(v)^2 = 2 log p - log p2 at any token: what WPO normalises by.
  at::Tensor sharp_logprobs;
  at::Tensor mask;      ///< [N] 1 = counts, 0 = not.
  at::Tensor sequence;  ///< [N] int64 in [0, A).
  at::Tensor labels;    ///< [A] 1 = desirable, 0 = undesirable, or undefined: pairs, or all are.
  /// [M] log-probs of the prompts' own tokens, each once for a preferred answer behind it,
  /// differentiable, or undefined: not asked for.
  at::Tensor prompt_logprobs;
  int64_t answers = 0;  ///< A.
  AnswerTotals totals;
};

/// What an objective returns for one micro-batch: its share of the step's loss (already divided by
/// the step's totals; shares are summed) and metric sums.
struct LossOutput {
  at::Tensor loss;  ///< Scalar, differentiable.
  MetricSums metrics;
};

}  // namespace temper
