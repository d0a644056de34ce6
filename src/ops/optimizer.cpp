#include <cmath>

#include "reference_ops.h"

namespace temper::ops::reference {

using namespace kernels;

void adamw(const AdamWArgs& a) {
  const double steps = static_cast<double>(a.step);
  at::Tensor p = vector(a.param, a.count);
  at::Tensor m = vector(a.exp_avg, a.count), v = vector(a.exp_avg_sq, a.count);
  const at::Tensor g = vector(a.grad, a.count) * double{a.grad_scale};
  m.mul_(a.beta1).add_(g, 1 - a.beta1);
  v.mul_(a.beta2).add_(g.square(), 1 - a.beta2);
  const at::Tensor m_hat = m / (1 - std::pow(a.beta1, steps));
  const at::Tensor v_hat = v / (1 - std::pow(a.beta2, steps));
  p.mul_(1 - a.learning_rate * a.weight_decay)
      .sub_(m_hat / (v_hat.sqrt() + a.eps), a.learning_rate);
  if (a.bf16 != nullptr) panels_to_bf16(a.param, a.count, a.bf16);
  if (a.f16 != nullptr) panels_to_f16(a.param, a.count, a.f16);
}

double sum_of_squares(const float* x, int64_t count) {
  return vector(x, count).to(at::kDouble).square().sum().item<double>();
}

}  // namespace temper::ops::reference
