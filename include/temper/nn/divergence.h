#pragma once

#include <cstdint>
#include <span>

#include "temper/kernels/linear.h"
#include "temper/nn/scoring.h"

namespace temper {

/// Hidden rows of a frozen teacher, with its LM head. Valid while the teacher's weights are.
struct TeacherRows {
  at::Tensor hidden;  ///< [M, hidden of the teacher] float32, a copy.
  kernels::PackedWeight head;
};

/// Runs the teacher over its own batch, which may be another text than the student's (a system
/// prompt in front), and keeps the rows that stand where the student is compared.
/// @param rows  [M] in [0, N).
[[nodiscard]] TeacherRows teacher_rows(CausalLM& teacher, const TokenBatch& batch,
                                       std::span<const int32_t> rows);

/// What a student is compared with. Row m of the teacher belongs to `tokens.rows[m]`.
struct DivergenceRequest {
  ScoreRequest tokens;  ///< The student's rows, and the tokens that follow them in the text.
  TeacherRows teacher;
  double beta = 0.5;      ///< 0 forward KL, 1 reverse KL, between them generalized JSD.
  double temperature = 1; ///< Of both sides, in the divergence alone; above 0.
};

/// Numbers of each row, [M] float32.
struct DivergenceScores {
  at::Tensor divergence;  ///< kernels/linear_divergence.h, nats.
  at::Tensor logprobs;    ///< Of the following tokens under the student at temperature 1.
  at::Tensor entropy;     ///< Of the student at temperature 1.
  at::Tensor agree;       ///< 1 where both find the same token likeliest, else 0.
};

/// d loss / d divergence and d loss / d logprob of each row, known before the forward.
struct DivergenceGradients {
  at::Tensor divergence;  ///< [M]
  at::Tensor logprobs;    ///< [M] or undefined: zeros.
};

/// Activations of a training step; reuse it from step to step.
struct DivergenceTape {
  ForwardTape forward;
  FloatBuffer hidden_rows, dhidden_rows;
};

/// Scores without gradients. Bits of a row depend on the two texts, the weights and the settings.
/// @throws Error for a teacher over another vocabulary, and for rows or tokens out of their range.
[[nodiscard]] DivergenceScores divergence(CausalLM& student, const TokenBatch& batch,
                                          const DivergenceRequest& request);

/// The same scores, and forward and backward of the student in one: adds the weights' gradients.
[[nodiscard]] DivergenceScores divergence_train(CausalLM& student, const TokenBatch& batch,
                                                const DivergenceRequest& request,
                                                const DivergenceGradients& gradients,
                                                DivergenceTape& tape);

}  // namespace temper
