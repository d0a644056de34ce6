#include <ATen/ops/from_blob.h>

#include <cmath>

#include "reference_ops.h"

namespace temper::ops::reference {

using namespace kernels;

namespace {

/// [n] floats of bfloat16 memory.
at::Tensor widened(uint16_t* moments, int64_t n) {
  return at::from_blob(moments, {n}, at::kBFloat16).to(at::kFloat);
}

void round_moments(const AdamWArgs& a, const at::Tensor& m, const at::Tensor& v) {
  const float* mean = m.const_data_ptr<float>();
  const float* square = v.const_data_ptr<float>();
  for (int64_t i = 0; i < a.count; ++i) {
    const uint32_t random = moment_draw(a.rounding_key, a.first + i);
    a.exp_avg_bf16[i] = round_moment(mean[i], random);
    a.exp_avg_sq_bf16[i] = round_moment(square[i], random >> 16);
  }
}

}  // namespace

void adamw(const AdamWArgs& a) {
  const double steps = static_cast<double>(a.step);
  const bool rounded = a.exp_avg_bf16 != nullptr;
  at::Tensor p = vector(a.param, a.count);
  at::Tensor m = rounded ? widened(a.exp_avg_bf16, a.count) : vector(a.exp_avg, a.count);
  at::Tensor v = rounded ? widened(a.exp_avg_sq_bf16, a.count) : vector(a.exp_avg_sq, a.count);
  const at::Tensor g = vector(a.grad, a.count) * double{a.grad_scale};
  m.mul_(a.beta1).add_(g, 1 - a.beta1);
  v.mul_(a.beta2).add_(g.square(), 1 - a.beta2);
  const at::Tensor m_hat = m / (1 - std::pow(a.beta1, steps));
  const at::Tensor v_hat = v / (1 - std::pow(a.beta2, steps));
  p.mul_(1 - a.learning_rate * a.weight_decay)
      .sub_(m_hat / (v_hat.sqrt() + a.eps), a.learning_rate);
  if (rounded) round_moments(a, m, v);
  if (a.bf16 != nullptr) panels_to_bf16(a.param, a.count, a.bf16);
  if (a.f16 != nullptr) panels_to_f16(a.param, a.count, a.f16);
}

double sum_of_squares(const float* x, int64_t count) {
  return vector(x, count).to(at::kDouble).square().sum().item<double>();
}

}  // namespace temper::ops::reference
