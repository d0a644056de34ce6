// Products, norms, rope, SwiGLU and the embedding.
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>

#include "reference_ops.h"

namespace temper::ops::reference {

using namespace kernels;

void embedding(const PackedWeight& w, std::span<const int32_t> ids, float* out) {
  if (ids.empty()) return;
  matrix(out, std::ssize(ids), w.k, w.k).copy_(weight(w).index_select(0, index(ids)));
}

void linear(const LinearArgs& a) {
  const auto& w = a.weight;
  const at::Tensor x = operand(matrix(a.x, a.rows, w.k, a.x_stride), w.product);
  at::Tensor result = x.matmul(weight(w).t());
  if (a.bias != nullptr) result = result + vector(a.bias, w.n);
  at::Tensor y = matrix(a.y, a.rows, w.n, a.y_stride);
  y.copy_(a.add ? y + result : result);
  if (a.swiglu != nullptr) {
    const int64_t width = w.n / 2;
    matrix(a.swiglu, a.rows, width, width)
        .copy_(at::silu(y.narrow(1, 0, width)) * y.narrow(1, width, width));
  }
}

void linear_backward_input(const LinearBackwardInputArgs& a) {
  const auto& w = a.weight;
  const at::Tensor dy = operand(matrix(a.dy, a.rows, w.n, a.dy_stride), w.product);
  const at::Tensor result = dy.matmul(weight(w));
  at::Tensor dx = matrix(a.dx, a.rows, w.k, a.dx_stride);
  dx.copy_(a.add ? dx + result : result);
}

void linear_backward_weight(const LinearBackwardWeightArgs& a) {
  const at::Tensor dy = matrix(a.dy, a.rows, a.n, a.dy_stride);
  const at::Tensor x = operand(matrix(a.x, a.rows, a.k, a.x_stride), a.product);
  add_to_panels(a.dweight, operand(dy, a.product).t().matmul(x));
  if (a.dbias != nullptr) vector(a.dbias, a.n).add_(dy.sum(0));
}

void rms_norm(const RmsNormArgs& a) {
  const at::Tensor x = matrix(a.x, a.rows, a.width, a.width);
  const at::Tensor rstd = (x.square().mean(-1) + double{a.eps}).rsqrt();
  const at::Tensor y = x * rstd.unsqueeze(-1) * vector(a.weight, a.width);
  matrix(a.y, a.rows, a.width, a.width).copy_(y);
  if (a.rstd != nullptr) vector(a.rstd, a.rows).copy_(rstd);
}

void rms_norm_backward(const RmsNormBackwardArgs& a) {
  const at::Tensor dy = matrix(a.dy, a.rows, a.width, a.width);
  const at::Tensor rstd = vector(a.rstd, a.rows).unsqueeze(-1);
  const at::Tensor h = matrix(a.x, a.rows, a.width, a.width) * rstd;
  const at::Tensor g = dy * vector(a.weight, a.width);
  if (a.dweight != nullptr) vector(a.dweight, a.width).add_((dy * h).sum(0));
  if (a.dx == nullptr) return;
  const at::Tensor result = (g - h * (g * h).mean(-1, true)) * rstd;
  at::Tensor dx = matrix(a.dx, a.rows, a.width, a.width);
  dx.copy_(a.accumulate_dx ? dx + result : result);
}

void rope(float* x, int64_t row_stride, std::span<const int32_t> positions, int64_t heads,
          const RopeTable& table, bool inverse) {
  const int64_t rows = std::ssize(positions), half = table.half;
  const auto angles = [&](const std::vector<float>& values) {
    return matrix(values.data(), table.positions, half, half)
        .index_select(0, index(positions))
        .unsqueeze(1);
  };
  const at::Tensor c = angles(table.cos), s = inverse ? -angles(table.sin) : angles(table.sin);
  at::Tensor all =
      at::from_blob(x, {rows, heads, 2, half}, {row_stride, 2 * half, half, 1}, at::kFloat);
  const at::Tensor x1 = all.select(2, 0), x2 = all.select(2, 1);
  all.copy_(at::stack({x1 * c - x2 * s, x2 * c + x1 * s}, 2));
}

void swiglu(const float* gate_up, float* y, int64_t rows, int64_t width) {
  const at::Tensor in = matrix(gate_up, rows, 2 * width, 2 * width);
  matrix(y, rows, width, width)
      .copy_(at::silu(in.narrow(1, 0, width)) * in.narrow(1, width, width));
}

void swiglu_backward(const float* dy, const float* gate_up, float* dgate_up, int64_t rows,
                     int64_t width) {
  const at::Tensor in = matrix(gate_up, rows, 2 * width, 2 * width);
  const at::Tensor gate = in.narrow(1, 0, width), up = in.narrow(1, width, width);
  const at::Tensor d = matrix(dy, rows, width, width), s = gate.sigmoid();
  const at::Tensor slope = s * (1 + gate * (1 - s));
  matrix(dgate_up, rows, 2 * width, 2 * width).copy_(at::cat({d * up * slope, d * gate * s}, 1));
}

void add_inplace(float* x, const float* y, int64_t n) { vector(x, n).add_(vector(y, n)); }

}  // namespace temper::ops::reference
