#pragma once

#include <cstdint>
#include <span>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// One AdamW step (Loshchilov and Hutter 2019) over a flat fp32 buffer, elementwise in fp32:
/// p *= 1 - lr wd; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
/// p -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps), with g = grad_scale * grad.
/// Bits do not depend on threads or on how the buffer is split.
///
/// m and v may be kept in bfloat16: they are widened exactly, the parameter moves by the new ones in
/// fp32, and then each is rounded to one of its two neighbours, up with the probability of what lies
/// above the lower one: 16 random bits are added below the last place and the sum is cut. So the
/// expectation of what is stored is the exact moment, and a second moment that a step moves by less
/// than half a last place (0.001 of itself, where a place is 0.004 to 0.008) still moves on average.
struct AdamWArgs {
  float* param = nullptr;
  const float* grad = nullptr;
  float* exp_avg = nullptr;     ///< m, or null where it is bfloat16.
  float* exp_avg_sq = nullptr;  ///< v, likewise.
  uint16_t* bf16 = nullptr;     ///< bf16 panels to write back, or null; if set count % 64 == 0.
  uint16_t* f16 = nullptr;      ///< The same in half precision; at most one of the two is set.
  int64_t count = 0;
  float grad_scale = 1.0f;  ///< Clipping factor.
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  int64_t step = 1;  ///< t, counted from 1.
  uint16_t* exp_avg_bf16 = nullptr;     ///< m in bfloat16, or null.
  uint16_t* exp_avg_sq_bf16 = nullptr;  ///< v; set where m is.
  uint64_t rounding_key = 0;  ///< Of the draws: another one for each buffer and step.
  int64_t first = 0;          ///< Index of element 0 in the buffer whose draws are meant.
};
void adamw(const AdamWArgs& args);

/// The 32 random bits of an element: the low half rounds m, the high half v. A hash of (key,
/// element): elements that are 2^32 apart share one.
[[nodiscard]] uint32_t moment_draw(uint64_t key, int64_t element);

/// A finite value rounded to bfloat16 by 16 random bits, as above; NaN and infinities stay.
[[nodiscard]] uint16_t round_moment(float value, uint32_t random);

/// Sum of squares in double: fp32 values, fixed blocks of 4096 summed in order, blocks in order.
[[nodiscard]] double sum_of_squares(const float* x, int64_t count);

/// Norm of all gradients together, from each buffer's `sum_of_squares`, added in order.
[[nodiscard]] double global_norm(std::span<const double> squares);

/// Factor that brings gradients of this global norm down to `max_norm`: min(1, max_norm / (norm +
/// 1e-6)), as in torch.nn.utils.clip_grad_norm_. 1 if max_norm is 0: no clipping. NaN for a NaN
/// norm.
[[nodiscard]] double clip_factor(double norm, double max_norm);

namespace cuda {

/// The same bits as the CPU's.
/// @param grad_scale  One float on the device that stands in for `args.grad_scale`, so that
/// clipping
///                    needs no wait; or null.
Status adamw(const AdamWArgs& args, const float* grad_scale, Stream stream);

/// Doubles of workspace that `sum_of_squares` needs for `count` elements.
[[nodiscard]] constexpr int64_t sum_of_squares_workspace(int64_t count) {
  return (count + 4095) / 4096;
}

/// The CPU's bits, into one double.
/// @param workspace  [sum_of_squares_workspace(count)]
Status sum_of_squares(const float* x, int64_t count, double* workspace, double* sum, Stream stream);

/// `global_norm` and `clip_factor` of the CPU, the factor rounded to float: what `adamw` takes.
struct ClipArgs {
  const double* squares = nullptr;  ///< [buffers], each buffer's `sum_of_squares`.
  int64_t buffers = 0;
  double max_norm = 0;      ///< >= 0; 0: no clipping.
  double* norm = nullptr;   ///< One, out.
  float* factor = nullptr;  ///< One, out.
};
Status clip_factor(const ClipArgs& args, Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
