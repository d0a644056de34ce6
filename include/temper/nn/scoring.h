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
  /// [M] float32, nats: of the likeliest id in each place, so that a token is the likeliest where its
  /// log-prob is this one; undefined where scores were expected.
  at::Tensor best = {};
};

/// Which tokens to score: `targets[m]` as the token after batch row `rows[m]`. A prompt's last row
/// may be named once for each completion that follows it.
struct ScoreRequest {
  std::vector<int32_t> rows;     ///< [M] in [0, N).
  std::vector<int32_t> targets;  ///< [M] in [0, vocabulary).
};

/// d loss / d logprob and d loss / d entropy of each scored token.
struct ScoreGradients {
  at::Tensor logprobs;  ///< [M], or undefined: zeros.
  at::Tensor entropy;   ///< [M], or undefined: zeros.
};

/// Scores that a forward is expected to give, and the gradients that a loss has at them.
struct ExpectedScores {
  TokenScores scores;
  ScoreGradients gradients;
};

/// What `score_backward` needs; reuse it from step to step.
struct ScoringTape {
  ForwardTape forward;
  ScoreRequest request;
  float inverse_temperature = 1.0f;
  FloatBuffer hidden_rows, max, log_sum, dhidden_rows;
  TokenScores scores;
  /// Gradients that went through the head already; undefined: none did.
  ScoreGradients applied;
  bool as_expected = false;  ///< All scores had the bits that were expected of them.
};

/// Scores without gradients. Temperature > 0 divides the logits before the softmax.
/// The bits equal the sampler's for the same text, weights and temperature.
[[nodiscard]] TokenScores score(CausalLM& model, const TokenBatch& batch,
                                const ScoreRequest& request, double temperature);

/// The same scores, with everything that `score_backward` needs left in `tape`.
[[nodiscard]] TokenScores score_train(CausalLM& model, const TokenBatch& batch,
                                      const ScoreRequest& request, double temperature,
                                      ScoringTape& tape);

/// The same scores again, where those of an earlier forward over the same weights are at hand. As
/// long as they are `expected` bit for bit, their gradients go through the head in the same pass,
/// which saves `score_backward` from computing its logits again: a quarter of the head's work.
/// `tape.as_expected` says whether all were; if not, a loss must be evaluated at the new scores.
/// Either way `score_backward` takes the loss's gradients and adds what is still missing of them.
[[nodiscard]] TokenScores score_train(CausalLM& model, const TokenBatch& batch,
                                      const ScoreRequest& request, double temperature,
                                      const ExpectedScores& expected, ScoringTape& tape);

/// The hidden rows [N, hidden] of the batch that `score_train` ran, for other heads over the same
/// forward (ScalarHead). A view of the tape: valid until its next forward.
[[nodiscard]] at::Tensor taped_hidden(const CausalLM& model, const ScoringTape& tape);

/// Adds the weights' gradients, given d loss / d logprobs and, if defined, d loss / d entropy [M].
/// @param dhidden  [N, hidden] or undefined: what other heads add to d loss / d hidden.
void score_backward(CausalLM& model, ScoringTape& tape, const at::Tensor& dlogprobs,
                    const at::Tensor& dentropy, const at::Tensor& dhidden = {});

}  // namespace temper
