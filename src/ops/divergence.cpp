// Divergences over two LM heads, a tile of rows at a time.
#include "temper/ops/divergence.h"

#include <ATen/ops/logaddexp.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <optional>

#include "reference_ops.h"
#include "temper/kernels/linear_divergence.h"

namespace temper::ops {
namespace {

/// Log-probs; -inf is held at -1e4, so that 0 times it is 0.
at::Tensor held_logprobs(const at::Tensor& logits, double temperature) {
  return (logits / temperature).log_softmax(-1).clamp_min(-1e4);
}

}  // namespace

Divergence generalized_jsd(const at::Tensor& student_logits, const at::Tensor& teacher_logits,
                           double beta, double temperature) {
  const at::Tensor x = held_logprobs(student_logits, temperature);
  const at::Tensor y = held_logprobs(teacher_logits, temperature);
  const at::Tensor p = x.exp(), q = y.exp();
  if (beta == 0) return {(q * (y - x)).sum(-1), (p - q) / temperature};
  const auto mean_apart = [&](const at::Tensor& ratio, double scale) {
    const at::Tensor mean = (p * ratio).sum(-1, true);
    return p * (ratio - mean) * (scale / temperature);
  };
  if (beta == 1) return {(p * (x - y)).sum(-1), mean_apart(x - y, 1)};
  const at::Tensor m = at::logaddexp(x + std::log1p(-beta), y + std::log(beta));
  const at::Tensor value = beta * (q * (y - m)).sum(-1) + (1 - beta) * (p * (x - m)).sum(-1);
  return {value, mean_apart(x - m, 1 - beta)};
}

namespace reference {

using namespace kernels;

namespace {

/// Logits [rows, vocabulary] of one side from row `begin` on.
struct Side {
  at::Tensor hidden, logits;
};

Side side_of(const DivergenceSide& s, int64_t support, int64_t begin, int64_t rows) {
  Side out;
  out.hidden = matrix(s.hidden + begin * s.hidden_stride, rows, s.head.k, s.hidden_stride);
  out.logits = policy_logits(out.hidden, s.head, s.softcap, support);
  return out;
}

/// Outputs of one tile. @return what its gradients are made of.
Divergence write_tile(const LinearDivergenceArgs& a, const Side& student, const Side& teacher,
                      int64_t begin) {
  const int64_t rows = student.logits.size(0);
  const Divergence d = generalized_jsd(student.logits, teacher.logits, double{a.beta},
                                       1 / double{a.inverse_temperature});
  vector(a.divergence + begin, rows).copy_(d.value);
  const at::Tensor plain = held_logprobs(student.logits, 1);
  if (a.logprob != nullptr) {
    const at::Tensor targets = index({a.targets + begin, static_cast<size_t>(rows)}).unsqueeze(-1);
    vector(a.logprob + begin, rows).copy_(plain.gather(1, targets).squeeze(-1));
  }
  if (a.entropy != nullptr) vector(a.entropy + begin, rows).copy_(-(plain.exp() * plain).sum(-1));
  if (a.agree != nullptr) {
    const auto largest = [](const at::Tensor& z) { return std::get<1>(z.sort(true, 1, true)).select(1, 0); };
    vector(a.agree + begin, rows).copy_(largest(student.logits) == largest(teacher.logits));
  }
  return d;
}

/// d loss / d logits of a tile.
at::Tensor tile_gradient(const LinearDivergenceTrainArgs& g, const Side& student,
                         const Divergence& d, int64_t begin) {
  const LinearDivergenceArgs& a = g.forward;
  const int64_t rows = student.logits.size(0);
  at::Tensor dz = d.dlogits * vector(g.ddivergence + begin, rows).unsqueeze(-1);
  const at::Tensor p = held_logprobs(student.logits, 1).exp();
  if (g.dlogprob != nullptr) {
    const at::Tensor targets = index({a.targets + begin, static_cast<size_t>(rows)}).unsqueeze(-1);
    const at::Tensor c = vector(g.dlogprob + begin, rows).unsqueeze(-1);
    dz = (dz - c * p).scatter_add(1, targets, c);
  }
  if (a.student.softcap == 0) return dz;
  const at::Tensor slope = 1 - (student.logits / double{a.student.softcap}).square();
  return at::where(p > 0, dz * slope, 0.0);  // Outside the support the logit is -inf.
}

template <class Body>
void for_each_tile(const LinearDivergenceArgs& a, const Body& body) {
  for (int64_t begin = 0; begin < a.rows; begin += kHeadTileRows) {
    const int64_t rows = std::min(kHeadTileRows, a.rows - begin);
    const Side student = side_of(a.student, a.support, begin, rows);
    const Side teacher = side_of(a.teacher, a.support, begin, rows);
    body(begin, student, write_tile(a, student, teacher, begin));
  }
}

}  // namespace

void linear_divergence(const LinearDivergenceArgs& a) {
  for_each_tile(a, [](int64_t, const Side&, const Divergence&) {});
}

void linear_divergence_train(const LinearDivergenceTrainArgs& g) {
  const LinearDivergenceArgs& a = g.forward;
  at::Tensor dweight;
  for_each_tile(a, [&](int64_t begin, const Side& student, const Divergence& d) {
    const PackedWeight& head = a.student.head;
    const at::Tensor dz = operand(tile_gradient(g, student, d, begin), head.product);
    matrix(g.dhidden + begin * g.dhidden_stride, dz.size(0), head.k, g.dhidden_stride)
        .copy_(dz.matmul(weight(head)));
    if (g.dweight == nullptr) return;
    const at::Tensor part = dz.t().matmul(operand(student.hidden, head.product));
    dweight = dweight.defined() ? dweight.add_(part) : part;
  });
  if (dweight.defined()) add_to_panels(g.dweight, dweight);
}

}  // namespace reference
}  // namespace temper::ops
