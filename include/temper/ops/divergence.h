#pragma once

#include "temper/core/torch.h"

namespace temper::ops {

/// A divergence of each row, and its gradient with respect to the student's logits.
struct Divergence {
  at::Tensor value;    ///< [rows] nats. Differentiable.
  at::Tensor dlogits;  ///< [rows, vocabulary] d value / d student_logits of its own row, by formula.
};

/// Generalized Jensen-Shannon divergence (Agarwal et al. 2023, arXiv 2306.13649, eq. 1) between the
/// distributions of two models over the next token, in plain ATen; `kernels/linear_divergence.h` has
/// the formulas, TRL's `generalized_jsd_loss` the same values.
/// @param student_logits, teacher_logits  [rows, vocabulary] of one floating dtype; -inf: no mass.
/// @param beta  in [0, 1]: 0 forward KL, 1 reverse KL.
[[nodiscard]] Divergence generalized_jsd(const at::Tensor& student_logits,
                                         const at::Tensor& teacher_logits, double beta,
                                         double temperature);

}  // namespace temper::ops
