// The reference's own gradients against LibTorch's autograd through the formula in float64.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/silu.h>
#include <torch/csrc/autograd/autograd.h>

#include "attention_case.h"
#include "head_case.h"
#include "temper/core/torch.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/swiglu.h"

namespace temper::test_ops {
namespace {

at::Tensor leaf(const Floats& values, at::IntArrayRef shape) {
  return at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat)
      .to(at::kDouble)
      .requires_grad_(true);
}

at::Tensor constant(const Floats& values, at::IntArrayRef shape) {
  return at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat).to(at::kDouble);
}

std::vector<at::Tensor> gradients(const at::Tensor& loss, const std::vector<at::Tensor>& leaves) {
  return torch::autograd::grad({loss}, leaves);
}

Floats floats(const at::Tensor& t) {
  const at::Tensor f = t.detach().to(at::kFloat).contiguous();
  return {f.data_ptr<float>(), f.data_ptr<float>() + f.numel()};
}

TEST(Autograd, Products) {
  const int64_t rows = 33, n = 31, k = 65;
  const Weight w(n, k, 71, Stored::kFloat32);
  const Floats x = random_floats(rows * k, 72), dy = random_floats(rows * n, 73);
  const at::Tensor xs = leaf(x, {rows, k}), ws = leaf(w.rows, {n, k});
  const auto want = gradients((xs.matmul(ws.t()) * constant(dy, {rows, n})).sum(), {xs, ws});
  Floats dx(x.size()), dw(w.f32.size()), dw_rows(w.rows.size());
  reference().linear_backward_input({.dy = dy.data(),
                                     .dy_stride = n,
                                     .weight = w.packed(),
                                     .dx = dx.data(),
                                     .dx_stride = k,
                                     .rows = rows});
  reference().linear_backward_weight({.dy = dy.data(),
                                      .dy_stride = n,
                                      .x = x.data(),
                                      .x_stride = k,
                                      .dweight = dw.data(),
                                      .rows = rows,
                                      .n = n,
                                      .k = k});
  kernels::unpack_rows(dw.data(), 0, n, k, dw_rows.data());
  expect_within(dx, floats(want[0]), std::sqrt(double{n}), 6, "dx");
  expect_within(dw_rows, floats(want[1]), std::sqrt(double{rows}), 6, "dw");
}

TEST(Autograd, RmsNorm) {
  const int64_t rows = 7, width = 33;
  const Floats x = random_floats(rows * width, 74), w = random_floats(width, 75);
  const Floats dy = random_floats(rows * width, 76);
  const at::Tensor xs = leaf(x, {rows, width}), ws = leaf(w, {width});
  const at::Tensor y = xs * (xs.square().mean(-1, true) + 1e-5).rsqrt() * ws;
  const auto want = gradients((y * constant(dy, {rows, width})).sum(), {xs, ws});
  Floats out(x.size()), rstd(static_cast<size_t>(rows)), dx(x.size()), dw(w.size());
  reference().rms_norm({x.data(), w.data(), out.data(), rstd.data(), rows, width, 1e-5f});
  reference().rms_norm_backward(
      {dy.data(), x.data(), w.data(), rstd.data(), dx.data(), false, dw.data(), rows, width});
  expect_within(out, floats(y), 2, 4, "y");
  expect_within(dx, floats(want[0]), 4, 4, "dx");
  expect_within(dw, floats(want[1]), std::sqrt(double{rows}), 6, "dw");
}

TEST(Autograd, Swiglu) {
  const int64_t rows = 5, width = 31;
  const Floats in = random_floats(rows * 2 * width, 77, 4.0f), dy = random_floats(rows * width, 78);
  const at::Tensor ins = leaf(in, {rows, 2 * width});
  const at::Tensor y = at::silu(ins.narrow(1, 0, width)) * ins.narrow(1, width, width);
  const auto want = gradients((y * constant(dy, {rows, width})).sum(), {ins});
  Floats d(in.size());
  reference().swiglu_backward(dy.data(), in.data(), d.data(), rows, width);
  expect_within(d, floats(want[0]), 4.4, 4, "dgate_up");
}

TEST(Autograd, TreeAttention) {
  AttentionCase c = AttentionCase::tree(9, 2, 5, 4, 2, 8);
  c.window = 7;
  const int64_t rows = std::ssize(c.queries);
  const at::Tensor q = leaf(c.q, {rows, c.heads, c.head_dim});
  const at::Tensor k = leaf(c.k, {rows, c.kv_heads, c.head_dim});
  const at::Tensor v = leaf(c.v, {rows, c.kv_heads, c.head_dim});
  at::Tensor loss = constant({0.0f}, {});
  const at::Tensor dout = constant(c.dout, {rows, c.heads, c.head_dim});
  for (int64_t row = 0; row < rows; ++row) {
    // The keys one by one, as the header says them: last `window` of the first `visible`.
    const auto& query = c.queries[static_cast<size_t>(row)];
    std::vector<int64_t> keys;
    for (int32_t s = query.span_begin; s < query.span_end; ++s) {
      const auto& span = c.spans[static_cast<size_t>(s)];
      for (int64_t i = 0; i < span.count; ++i) keys.push_back(span.first_row + i);
    }
    keys.resize(static_cast<size_t>(query.visible));
    if (query.visible > c.window) keys.erase(keys.begin(), keys.end() - c.window);
    const at::Tensor index = at::from_blob(keys.data(), {std::ssize(keys)}, at::kLong).clone();
    for (int head = 0; head < c.heads; ++head) {
      const int kv = head / (c.heads / c.kv_heads);
      const at::Tensor mine = k.index_select(0, index).select(1, kv);
      const at::Tensor p =
          (mine.matmul(q.select(0, row).select(0, head)) * double{c.scale}).softmax(0);
      const at::Tensor out = p.matmul(v.index_select(0, index).select(1, kv));
      loss = loss + (out * dout.select(0, row).select(0, head)).sum();
    }
  }
  const auto want = gradients(loss, {q, k, v});
  auto got = c.backward(reference().tree_attention_backward, c.forward(reference().tree_attention));
  const Floats dk = random_floats(std::ssize(c.k), 35), dv = random_floats(std::ssize(c.v), 36);
  expect_within(got.dq, floats(want[0]), 2, 4, "dq");
  expect_within(got.dk, floats(want[1] + constant(dk, want[1].sizes())), 4, 4, "dk");
  expect_within(got.dv, floats(want[2] + constant(dv, want[2].sizes())), 4, 4, "dv");
}

TEST(Autograd, LinearLogprobWithSoftcapAndKl) {
  HeadCase c(33, 65, 31, Stored::kFloat32);
  c.inverse_temperature = 1.0f / 0.7f;
  c.add_options(40, 0, 5.0f);
  const at::Tensor hidden = leaf(c.hidden, {c.rows, c.head.k});
  const at::Tensor head = leaf(c.head.rows, {c.head.n, c.head.k});
  const auto logprobs = [&](const at::Tensor& h, const at::Tensor& w) {
    const at::Tensor z = (h.matmul(w.t()) / 5.0).tanh() * 5.0;
    return (z.narrow(1, 0, 40) * double{c.inverse_temperature}).log_softmax(-1);
  };
  const at::Tensor lp = logprobs(hidden, head);
  const at::Tensor lq = logprobs(constant(c.ref_hidden, {c.rows, c.head.k}),
                                 constant(c.ref_head.rows, {c.head.n, c.head.k}));
  const at::Tensor targets = at::from_blob(c.targets.data(), {c.rows, 1}, at::kInt).to(at::kLong);
  const at::Tensor kl = (lp.exp() * (lp - lq)).sum(-1);
  const at::Tensor loss =
      (lp.gather(1, targets).squeeze(1) * constant(c.dlogprob, {c.rows})).sum() +
      (-(lp.exp() * lp).sum(-1) * constant(c.dentropy, {c.rows})).sum() +
      (kl * constant(c.dkl, {c.rows})).sum();
  const auto want = gradients(loss, {hidden, head});
  const auto out = c.forward(reference().linear_logprob);
  const auto got = c.backward(reference().linear_logprob_backward, out, true);
  Floats dw(c.head.rows.size());
  kernels::unpack_rows(got.dweight.data(), 0, c.head.n, c.head.k, dw.data());
  expect_within(out.kl, floats(kl), c.largest_logit(), 6, "kl");
  expect_within(got.dhidden, floats(want[0]), c.largest_logit(), 6, "dhidden");
  expect_within(dw, floats(want[1]), c.largest_logit() * 6, 6, "dw");
}

TEST(Autograd, LinearLogprob) {
  HeadCase c(131, 65, 33, Stored::kFloat32);
  c.inverse_temperature = 1.0f / 0.7f;
  const at::Tensor hidden = leaf(c.hidden, {c.rows, c.head.k});
  const at::Tensor head = leaf(c.head.rows, {c.head.n, c.head.k});
  const at::Tensor lp = (hidden.matmul(head.t()) * double{c.inverse_temperature}).log_softmax(-1);
  const at::Tensor targets = at::from_blob(c.targets.data(), {c.rows, 1}, at::kInt).to(at::kLong);
  const at::Tensor logprob = lp.gather(1, targets).squeeze(1);
  const at::Tensor entropy = -(lp.exp() * lp).sum(-1);
  const at::Tensor loss = (logprob * constant(c.dlogprob, {c.rows})).sum() +
                          (entropy * constant(c.dentropy, {c.rows})).sum();
  const auto want = gradients(loss, {hidden, head});
  const auto out = c.forward(reference().linear_logprob);
  const auto got = c.backward(reference().linear_logprob_backward, out, true);
  Floats dw(c.head.rows.size());
  kernels::unpack_rows(got.dweight.data(), 0, c.head.n, c.head.k, dw.data());
  expect_within(out.logprob, floats(logprob), c.largest_logit(), 4, "logprob");
  expect_within(out.entropy, floats(entropy), c.largest_logit(), 4, "entropy");
  expect_within(got.dhidden, floats(want[0]), c.largest_logit(), 4, "dhidden");
  expect_within(dw, floats(want[1]), c.largest_logit() * 12, 4, "dw");
}

}  // namespace
}  // namespace temper::test_ops
