#pragma once

#include <cstdint>
#include <span>

#include "temper/kernels/cuda.h"
#include "temper/kernels/linear.h"

namespace temper::kernels {

/// How a next token is drawn. Applied in transformers' order: repetition penalty, temperature,
/// top-k, top-p, min-p.
struct SamplingParams {
  float temperature = 1.0f;  ///< 0: greedy (largest logit, ties to the lower id).
  int64_t top_k = 0;         ///< Keep the k largest (ties with the k-th stay); 0: all.
  /// Keep the smallest set with at least this mass, in (0, 1]. Mass is counted in whole units of
  /// 2^-40 of the largest probability, so that no order of summation decides.
  float top_p = 1.0f;
  float min_p = 0.0f;               ///< Drop tokens below min_p times the largest probability.
  float repetition_penalty = 1.0f;  ///< Divides positive, multiplies negative logits of seen ids.
};

/// One row to draw for.
struct SampleRow {
  const SamplingParams* params = nullptr;
  std::span<const int32_t> seen;  ///< Ids under the repetition penalty (prompt and completion).
  double uniform = 0;             ///< In [0, 1): a draw keyed by sequence and position.
};

/// What was drawn, in nats.
struct SampledToken {
  int32_t id = 0;
  float logprob = 0;         ///< Under the distribution that was sampled from (0 when greedy).
  float policy_logprob = 0;  ///< Under the untruncated policy at the temperature (1 when greedy).
  float log_kept_mass = 0;   ///< Policy mass of the tokens that the truncation kept, log.
  float entropy = 0;         ///< Of the untruncated policy at that temperature.
};

/// Draws one token a row from hidden rows x LM head by inverse CDF in ascending id order.
/// Ids at or above `allowed` (padding rows of the vocabulary) are never drawn.
/// A draw depends on its row's logits, parameters and uniform alone; `policy_logprob` and `entropy`
/// are bitwise those of `linear_logprob` at the same temperature, softcap and support.
struct LinearSampleArgs {
  const float* hidden = nullptr;  ///< [rows, k]
  int64_t hidden_stride = 0;
  PackedWeight head;
  int64_t allowed = 0;  ///< In [1, vocabulary].
  std::span<const SampleRow> rows;
  std::span<SampledToken> out;
  float softcap = 0;    ///< Logits become softcap tanh(logit / softcap) before any rule; 0: not.
  int64_t support = 0;  ///< Ids that the policy gives probability: [0, support); 0: all.
};
void linear_sample(const LinearSampleArgs& args);

/// The processed distribution of one row of raw logits (before temperature), as probabilities that
/// sum to 1. For tests and tools; `linear_sample` draws from exactly this.
void sampling_distribution(std::span<const float> logits, const SamplingParams& params,
                           std::span<const int32_t> seen, std::span<float> probabilities);

namespace cuda {

/// Rows of logits that exist at a time while sampling. No bit depends on it.
inline constexpr int64_t kSampleTileRows = 256;
/// Floats of workspace that `linear_sample` needs.
[[nodiscard]] constexpr int64_t linear_sample_workspace(int64_t rows, int64_t vocabulary) {
  return 2 * (rows < kSampleTileRows ? rows : kSampleTileRows) * panel_count(vocabulary) * kPanel;
}

/// As kernels::LinearSampleArgs, in flat arrays that all lie on the device.
struct LinearSampleArgs {
  const float* hidden = nullptr;  ///< [rows, k]
  int64_t hidden_stride = 0;
  PackedWeight head;
  int64_t allowed = 0;  ///< In [1, vocabulary]; the vocabulary has at most 4,194,304 ids.
  int64_t rows = 0;
  const SamplingParams* params = nullptr;  ///< [rows]
  const double* uniforms = nullptr;        ///< [rows] in [0, 1)
  const int32_t* seen = nullptr;           ///< All rows' seen ids, or null: none.
  const int64_t* seen_begin = nullptr;     ///< [rows + 1]: row r's are seen[b[r], b[r + 1]).
  SampledToken* out = nullptr;             ///< [rows]
  float softcap = 0;
  int64_t support = 0;
};
/// For the same logits the same tokens and numbers, to the bit, as the CPU. Seen ids that are not
/// allowed are left out. Without a sort: cuts are found by exact counts.
/// @param workspace  [linear_sample_workspace(rows, vocabulary)]
Status linear_sample(const LinearSampleArgs& args, float* workspace, Stream stream);

}  // namespace cuda

}  // namespace temper::kernels
