#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "temper/nn/causal_lm.h"

namespace temper {

/// Log-probabilities of given tokens and entropies of the distributions they were drawn from.
struct TokenScores {
  at::Tensor logprobs;  ///< [M] float32, nats.
  at::Tensor entropy;   ///< [M] float32, nats.
};

/// Which tokens to score: `targets[m]` as the token after batch row `rows[m]`. A prompt's last row
/// may be named once for each completion that follows it.
struct ScoreRequest {
  std::vector<int32_t> rows;     ///< [M] in [0, N).
  std::vector<int32_t> targets;  ///< [M] in [0, vocabulary).
};

/// What `score_backward` needs; reuse it from step to step.
struct ScoringTape {
  ForwardTape forward;
  ScoreRequest request;
  float inverse_temperature = 1.0f;
  FloatBuffer hidden_rows, max, log_sum, dhidden_rows;
  TokenScores scores;
};

/// Scores without gradients. Temperature > 0 divides the logits before the softmax.
/// The bits equal the sampler's for the same text, weights and temperature.
[[nodiscard]] TokenScores score(CausalLM& model, const TokenBatch& batch,
                                const ScoreRequest& request, double temperature);

/// The same scores, with everything that `score_backward` needs left in `tape`.
[[nodiscard]] TokenScores score_train(CausalLM& model, const TokenBatch& batch,
                                      const ScoreRequest& request, double temperature,
                                      ScoringTape& tape);

/// Adds the weights' gradients, given d loss / d logprobs and, if defined, d loss / d entropy [M].
void score_backward(CausalLM& model, ScoringTape& tape, const at::Tensor& dlogprobs,
                    const at::Tensor& dentropy);

}  // namespace temper
