#pragma once

#include <cstdint>

#include "temper/kernels/linear.h"

namespace temper::kernels {

/// Rows whose distributions over the vocabulary are softmax(cap(hidden W^T) / temperature).
struct DivergenceSide {
  const float* hidden = nullptr;  ///< [rows, head.k]
  int64_t hidden_stride = 0;      ///< In floats.
  PackedWeight head;              ///< [vocabulary, k]
  float softcap = 0;              ///< As `LinearLogprobArgs::softcap`.
};

/// How far a student's distribution p over the next token is from a teacher's q, row by row and over
/// the whole vocabulary (generalized Jensen-Shannon divergence, Agarwal et al. 2023, eq. 1):
///
///     beta = 0: KL(q || p)   (forward)
///     beta = 1: KL(p || q)   (reverse)
///     else: beta KL(q || m) + (1 - beta) KL(p || m),  m = beta q + (1 - beta) p
///
/// [rows, vocabulary] never exists: logits of both live in two tiles of `kHeadTileRows` rows, which
/// is all the extra memory. Sides may differ in k, in what their weights are stored in and in their
/// products, not in the vocabulary. Exactness: a row's outputs depend on that row of both sides, the
/// weights and the options alone. Equal logits give exactly 0, and a gradient of exactly 0.
struct LinearDivergenceArgs {
  DivergenceSide student;
  DivergenceSide teacher;
  int64_t rows = 0;
  float beta = 0.5f;                 ///< 0, 1, or in [1e-4, 1 - 1e-4].
  float inverse_temperature = 1.0f;  ///< Of both sides, in the divergence alone; above 0.
  int64_t support = 0;               ///< As `LinearLogprobArgs::support`.
  const int32_t* targets = nullptr;  ///< [rows] in [0, support); read where `logprob` is set.
  float* divergence = nullptr;       ///< [rows] out, nats.
  float* logprob = nullptr;  ///< [rows] out, or null: the student's of `targets` at temperature 1.
  float* entropy = nullptr;  ///< [rows] out, or null: the student's at temperature 1, nats.
  float* agree = nullptr;    ///< [rows] out, or null: 1 where both find the same id likeliest, else 0.
};

/// @throws Error for options out of their range, or two vocabularies.
/// @note As in `linear_logprob`, a log-ratio is held at about 1e4 where one side has no mass.
void linear_divergence(const LinearDivergenceArgs& args);

/// Values and, in the same pass, gradients with respect to the student, from d loss / d divergence
/// (c) and d loss / d logprob (g). The teacher gets none. With D the reverse KL and K = KL(p || m):
///
///     beta = 0: dz_v = c (p_v - q_v) / T
///     beta = 1: dz_v = c p_v (ln p_v - ln q_v - D) / T
///     else: dz_v = c (1 - beta) p_v (ln p_v - ln m_v - K) / T
///
/// plus g (1[v = y] - p_v at temperature 1), times the cap's slope; dhidden = dz W and
/// dW += dz^T hidden, in the student's product, one chain over ascending rows.
struct LinearDivergenceTrainArgs {
  LinearDivergenceArgs forward;
  const float* ddivergence = nullptr;  ///< [rows]
  const float* dlogprob = nullptr;     ///< [rows] or null; needs `forward.logprob`.
  float* dhidden = nullptr;            ///< [rows, k] of the student, overwritten.
  int64_t dhidden_stride = 0;
  float* dweight = nullptr;  ///< panel_elements(vocabulary, k), or null for a frozen head.
};
void linear_divergence_train(const LinearDivergenceTrainArgs& args);

}  // namespace temper::kernels
