#pragma once

#include <cstdint>
#include <functional>

#include "temper/kernels/cuda.h"
#include "temper/kernels/linear.h"

namespace temper::kernels {

/// Rows of logits that exist at a time, even. No bit depends on it.
inline constexpr int64_t kHeadTileRows = 256;
/// The most ids that `top_k` gives a row.
inline constexpr int64_t kMaxTopK = 64;

/// A second, frozen distribution over the same ids for each row, at the same temperature and over
/// the same support. On if `hidden` is set.
struct ReferenceHead {
  const float* hidden = nullptr;  ///< [rows, head.k]; k may differ from the policy's.
  int64_t hidden_stride = 0;
  PackedWeight head;         ///< [vocabulary, k]
  float softcap = 0;         ///< As the policy's; 0: none.
  float* kl = nullptr;       ///< [rows] out: KL(policy || reference), nats.
  float* logprob = nullptr;  ///< [rows] out: of the targets under the reference, or null.
  float* max = nullptr;      ///< [rows] out, kept for the backward.
  float* log_sum = nullptr;  ///< [rows] out, kept for the backward.
};

/// Log-probability, entropy and normaliser of rows under softmax(cap(hidden W^T) / temperature).
/// [rows, vocabulary] never exists: logits live in a tile of `kHeadTileRows` rows (two tiles with a
/// reference), which is all the extra memory: 50 MB for 49,152 ids.
/// Exactness: a row's outputs depend on that row, W and the options alone. The sampler calls the
/// same row code on the same logits, so a sampled token's log-prob has the trainer's bits.
struct LinearLogprobArgs {
  const float* hidden = nullptr;  ///< [rows, k]
  int64_t hidden_stride = 0;
  PackedWeight head;                 ///< [vocabulary, k]
  const int32_t* targets = nullptr;  ///< [rows] in [0, support).
  int64_t rows = 0;
  float inverse_temperature = 1.0f;
  float* logprob = nullptr;  ///< [rows] nats.
  float* entropy = nullptr;  ///< [rows] nats, or null.
  float* max = nullptr;      ///< [rows] largest scaled logit, kept for the backward.
  float* log_sum = nullptr;  ///< [rows] log sum exp(scaled logit - max), kept for the backward.
  /// Logits become softcap tanh(logit / softcap) before the temperature (Gemma 2); 0: they do not.
  float softcap = 0;
  int64_t support = 0;  ///< Ids that have probability: [0, support); 0: the whole vocabulary.
  /// The ids of the largest logits, descending, the lower of equals first; 0 to `kMaxTopK`.
  int64_t top_k = 0;
  int32_t* top_ids = nullptr;     ///< [rows, top_k]; -1 where no more ids have a logit above -inf.
  float* top_logprobs = nullptr;  ///< [rows, top_k] nats, the bits of `logprob`; -inf beside -1.
  ReferenceHead reference = {};
};

/// @throws Error for options out of their range.
/// @note KL is (sum e^x (x - y)) / (sum e^x) + log sum e^y - log sum e^x, x and y logits less their
/// maxima: exactly 0 for equal logits. Where the policy has mass and the reference's logit is more
/// than 1e4 below its maximum, or -inf, the log-ratio is held at about 1e4.
void linear_logprob(const LinearLogprobArgs& args);

/// Gradients from d loss / d logprob (g), / d entropy (e) and / d KL (c), with p the policy, q the
/// reference and H the entropy:
/// dz_v = (g (1[v = y] - p_v) - e p_v (ln p_v + H) + c p_v (ln p_v - ln q_v - KL)) / T,
/// times 1 - (capped logit / softcap)^2; dhidden = dz W, dW += dz^T hidden. The reference gets
/// none. A pair of rows (2 i, 2 i + 1) without any coefficient is left out of every product, and a
/// single such row counts as zeros, so what stands in its hidden row reaches nothing, NaN included.
struct LinearLogprobBackwardArgs {
  LinearLogprobArgs forward;        ///< As it was called, outputs included.
  const float* dlogprob = nullptr;  ///< [rows]
  const float* dentropy = nullptr;  ///< [rows] or null; needs `forward.entropy`.
  float* dhidden = nullptr;         ///< [rows, k], overwritten.
  int64_t dhidden_stride = 0;
  float* dweight = nullptr;    ///< panel_elements(vocabulary, k), or null for a frozen head.
  const float* dkl = nullptr;  ///< [rows] or null; needs `forward.reference`.
};
/// Recomputes each tile of logits: 8 operations a row and weight with the forward. dW continues one
/// chain over ascending rows, in the head's `product`.
void linear_logprob_backward(const LinearLogprobBackwardArgs& args);

/// Forward and backward in one pass: 6 operations a row and weight, since a tile's logits become
/// its dz in place.
struct LinearLogprobTrainArgs {
  /// Outputs and gradients, `forward.max` and `forward.log_sum` included. `dlogprob`, `dentropy`
  /// and `dkl` are read after `coefficients` returned.
  LinearLogprobBackwardArgs pass;
  /// Called on the calling thread after the outputs of rows [begin, end) are written, rows in
  /// order: fills these rows' coefficients. It may not call an op over the head. Empty: they are
  /// filled already.
  std::function<void(int64_t begin, int64_t end)> coefficients;
};
/// The same bits as `linear_logprob` and `linear_logprob_backward`. Extra memory: the tile of
/// logits, and with kDot its bf16 words (half as much again).
void linear_logprob_train(const LinearLogprobTrainArgs& args);

namespace cuda {

/// Floats of workspace that `linear_logprob` needs: its tile, and one of the reference.
[[nodiscard]] inline int64_t linear_logprob_workspace(const LinearLogprobArgs& args) {
  const int64_t rows = args.rows < kHeadTileRows ? args.rows : kHeadTileRows;
  const int64_t tiles = args.reference.hidden == nullptr ? 1 : 2;
  return rows * tiles * panel_count(args.head.n) * kPanel;
}
/// The same for its backward and for the one-pass form, with a tile's hidden rows.
[[nodiscard]] inline int64_t linear_logprob_backward_workspace(const LinearLogprobArgs& args) {
  const int64_t rows = args.rows < kHeadTileRows ? args.rows : kHeadTileRows;
  return linear_logprob_workspace(args) + rows * args.head.k;
}

/// As on the CPU, and from the same logits with the same bits: log-probs, entropy, KL, top-k and
/// the logits' gradient. The products are those of `cuda::linear`. At most 4,194,304 ids.
/// @param workspace  [linear_logprob_workspace(args)]
Status linear_logprob(const LinearLogprobArgs& args, float* workspace, Stream stream);
/// Coefficients are read on the device, so rows without any still take their part of each product;
/// their hidden rows reach nothing.
/// @param workspace  [linear_logprob_backward_workspace(args.forward)], here and below.
Status linear_logprob_backward(const LinearLogprobBackwardArgs& args, float* workspace,
                               Stream stream);
/// `coefficients` is called when the work that writes the outputs of rows [begin, end) has been
/// launched, and launches on `stream` what fills theirs.
Status linear_logprob_train(const LinearLogprobTrainArgs& args, float* workspace, Stream stream);

}  // namespace cuda

}  // namespace temper::kernels
