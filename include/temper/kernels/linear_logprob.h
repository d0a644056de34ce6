#pragma once

#include <cstdint>

#include "temper/kernels/linear.h"

namespace temper::kernels {

/// Log-probability, entropy and normaliser of rows under softmax(hidden W^T / temperature).
/// [rows, vocabulary] never exists: logits live in a tile of `kHeadTileRows` rows.
/// Exactness: a row's outputs depend on that row, W and the temperature alone. The sampler calls
/// the same row code on the same logits, so a sampled token's log-prob has the trainer's bits.
struct LinearLogprobArgs {
  const float* hidden = nullptr;  ///< [rows, k]
  int64_t hidden_stride = 0;
  PackedWeight head;                 ///< [vocabulary, k]
  const int32_t* targets = nullptr;  ///< [rows] in [0, vocabulary).
  int64_t rows = 0;
  float inverse_temperature = 1.0f;
  float* logprob = nullptr;  ///< [rows] nats.
  float* entropy = nullptr;  ///< [rows] nats, or null.
  float* max = nullptr;      ///< [rows] largest scaled logit, kept for the backward.
  float* log_sum = nullptr;  ///< [rows] log sum exp(scaled logit - max), kept for the backward.
};
void linear_logprob(const LinearLogprobArgs& args);

/// Gradients from d loss / d logprob and d loss / d entropy:
/// dz_v = (g (1[v = y] - p_v) - e p_v (ln p_v + H)) / T, dhidden = dz W, dW += dz^T hidden.
/// Recomputes each tile of logits; dW continues one chain over ascending rows.
struct LinearLogprobBackwardArgs {
  LinearLogprobArgs forward;        ///< As it was called, outputs included.
  const float* dlogprob = nullptr;  ///< [rows]
  const float* dentropy = nullptr;  ///< [rows] or null.
  float* dhidden = nullptr;         ///< [rows, k], overwritten.
  int64_t dhidden_stride = 0;
  float* dweight = nullptr;  ///< panel_elements(vocabulary, k), or null for a frozen head.
};
void linear_logprob_backward(const LinearLogprobBackwardArgs& args);

/// Rows of logits that exist at a time.
inline constexpr int64_t kHeadTileRows = 128;

}  // namespace temper::kernels
