#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "temper/core/torch.h"
#include "temper/kernels/adamw.h"
#include "temper/kernels/embedding.h"
#include "temper/kernels/gae.h"
#include "temper/kernels/group_advantages.h"
#include "temper/kernels/kl_penalty.h"
#include "temper/kernels/linear.h"
#include "temper/kernels/linear_divergence.h"
#include "temper/kernels/linear_logprob.h"
#include "temper/kernels/masked_stats.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/rope.h"
#include "temper/kernels/sampling.h"
#include "temper/kernels/swiglu.h"
#include "temper/kernels/tree_attention.h"

// The ops in plain ATen, each with the signature of its public kernel.
namespace temper::ops::reference {

void embedding(const kernels::PackedWeight& w, std::span<const int32_t> ids, float* out);
void linear(const kernels::LinearArgs& a);
void linear_backward_input(const kernels::LinearBackwardInputArgs& a);
void linear_backward_weight(const kernels::LinearBackwardWeightArgs& a);
void rms_norm(const kernels::RmsNormArgs& a);
void rms_norm_backward(const kernels::RmsNormBackwardArgs& a);
void rope(float* x, int64_t row_stride, std::span<const int32_t> positions, int64_t heads,
          const kernels::RopeTable& table, bool inverse);
void swiglu(const float* gate_up, float* y, int64_t rows, int64_t width);
void swiglu_backward(const float* dy, const float* gate_up, float* dgate_up, int64_t rows,
                     int64_t width);
void add_inplace(float* x, const float* y, int64_t n);
void tree_attention(const kernels::TreeAttentionArgs& a);
void tree_attention_backward(const kernels::TreeAttentionBackwardArgs& a);
void linear_logprob(const kernels::LinearLogprobArgs& a);
void linear_logprob_backward(const kernels::LinearLogprobBackwardArgs& a);
void linear_divergence(const kernels::LinearDivergenceArgs& a);
void linear_divergence_train(const kernels::LinearDivergenceTrainArgs& a);
void linear_sample(const kernels::LinearSampleArgs& a);
void sampling_distribution(std::span<const float> logits, const kernels::SamplingParams& p,
                           std::span<const int32_t> seen, std::span<float> probabilities);
void kl_penalty(const kernels::KlPenaltyArgs& a);
void shape_rewards(const kernels::ShapeRewardsArgs& a);
void gae(const kernels::GaeArgs& a);
void group_advantages(const kernels::GroupAdvantagesArgs& a);
kernels::MaskedStats masked_stats(const float* x, const uint8_t* mask, int64_t count);
void whiten(const kernels::WhitenArgs& a);
void adamw(const kernels::AdamWArgs& a);
double sum_of_squares(const float* x, int64_t count);

/// [rows, columns] over memory whose rows are `stride` floats apart: writes go through.
[[nodiscard]] at::Tensor matrix(const float* p, int64_t rows, int64_t columns, int64_t stride);
/// [n] over memory.
[[nodiscard]] at::Tensor vector(const float* p, int64_t n);
/// [rows, columns] of ids over contiguous memory.
[[nodiscard]] at::Tensor int_matrix(int32_t* p, int64_t rows, int64_t columns);
/// Ids as an index tensor.
[[nodiscard]] at::Tensor index(std::span<const int32_t> ids);
/// What a product reads of float32 activations: all of them, or for kDot their bf16 rounding.
[[nodiscard]] at::Tensor operand(const at::Tensor& x, kernels::Product product);
/// A packed weight as row-major [n, k] float32, copied.
[[nodiscard]] at::Tensor weight(const kernels::PackedWeight& w);
/// Logits of hidden rows [rows, k] after the softcap (0: none), -inf from `support` (0: none) on.
[[nodiscard]] at::Tensor policy_logits(const at::Tensor& hidden, const kernels::PackedWeight& head,
                                       float softcap, int64_t support);
/// Adds a row-major [n, k] to float32 panels.
void add_to_panels(float* panels, const at::Tensor& rows);

}  // namespace temper::ops::reference
