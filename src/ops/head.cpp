// Log-probs over the LM head, a tile of rows at a time: all logits of a batch would not fit.
#include <ATen/ops/where.h>

#include <limits>

#include "reference_ops.h"

namespace temper::ops::reference {

using namespace kernels;

at::Tensor policy_logits(const at::Tensor& hidden, const PackedWeight& head, float softcap,
                         int64_t support) {
  at::Tensor z = operand(hidden, head.product).matmul(weight(head).t());
  if (softcap > 0) z = (z / double{softcap}).tanh() * double{softcap};
  if (support > 0) {
    z.narrow(1, support, head.n - support).fill_(-std::numeric_limits<double>::infinity());
  }
  return z;
}

namespace {

/// Rows [begin, begin + rows) of a call under one head, all [rows, vocabulary].
struct Tile {
  at::Tensor hidden;    // [rows, k]
  at::Tensor logits;    // After the softcap, before the temperature.
  at::Tensor logprobs;  // -inf is held at -1e4, so that 0 times it is 0.
  at::Tensor p;
};

Tile tile_of(const at::Tensor& hidden, const PackedWeight& head, float softcap,
             const LinearLogprobArgs& a) {
  const at::Tensor logits = policy_logits(hidden, head, softcap, a.support);
  const at::Tensor logprobs = (logits * double{a.inverse_temperature}).log_softmax(-1);
  return {hidden, logits, logprobs.clamp_min(-1e4), logprobs.exp()};
}

Tile policy_tile(const LinearLogprobArgs& a, int64_t begin, int64_t rows) {
  return tile_of(matrix(a.hidden + begin * a.hidden_stride, rows, a.head.k, a.hidden_stride),
                 a.head, a.softcap, a);
}

Tile reference_tile(const LinearLogprobArgs& a, int64_t begin, int64_t rows) {
  const ReferenceHead& r = a.reference;
  return tile_of(matrix(r.hidden + begin * r.hidden_stride, rows, r.head.k, r.hidden_stride),
                 r.head, r.softcap, a);
}

template <class Body>
void for_each_tile(int64_t rows, const Body& body) {
  for (int64_t begin = 0; begin < rows; begin += kHeadTileRows) {
    body(begin, std::min(kHeadTileRows, rows - begin));
  }
}

at::Tensor targets_of(const LinearLogprobArgs& a, int64_t begin, int64_t rows) {
  return index({a.targets + begin, static_cast<size_t>(rows)}).unsqueeze(-1);
}

at::Tensor entropy_of(const Tile& t) { return -(t.p * t.logprobs).sum(-1); }
at::Tensor kl_of(const Tile& t, const Tile& q) { return (t.p * (t.logprobs - q.logprobs)).sum(-1); }

/// Log-probs of the targets and the normaliser; null pointers are not wanted.
void write_row_numbers(const Tile& t, const LinearLogprobArgs& a, const at::Tensor& targets,
                       std::array<float*, 3> to) {
  const at::Tensor scaled = t.logits * double{a.inverse_temperature};
  const at::Tensor max = scaled.amax(-1), rows = t.logprobs.gather(1, targets).squeeze(-1);
  const at::Tensor log_sum = (scaled - max.unsqueeze(-1)).exp().sum(-1).log();
  const at::Tensor values[] = {rows, max, log_sum};
  for (size_t i = 0; i < 3; ++i) {
    if (to[i] != nullptr) vector(to[i], rows.numel()).copy_(values[i]);
  }
}

void write_top_k(const Tile& t, const LinearLogprobArgs& a, int64_t begin) {
  const int64_t rows = t.logits.size(0), found = std::min(a.top_k, a.head.n);
  const auto [sorted, order] = t.logits.sort(true, 1, true);
  const at::Tensor none = sorted.narrow(1, 0, found) == -std::numeric_limits<double>::infinity();
  const at::Tensor ids = order.narrow(1, 0, found);
  matrix(a.top_logprobs + begin * a.top_k, rows, a.top_k, a.top_k)
      .fill_(-std::numeric_limits<double>::infinity())
      .narrow(1, 0, found)
      .copy_(t.logprobs.gather(1, ids).masked_fill(none, -std::numeric_limits<double>::infinity()));
  int_matrix(a.top_ids + begin * a.top_k, rows, a.top_k)
      .fill_(-1)
      .narrow(1, 0, found)
      .copy_(ids.masked_fill(none, -1));
}

}  // namespace

void linear_logprob(const LinearLogprobArgs& a) {
  for_each_tile(a.rows, [&](int64_t begin, int64_t rows) {
    const auto at = [&](float* p) { return p == nullptr ? nullptr : p + begin; };
    const Tile t = policy_tile(a, begin, rows);
    const at::Tensor targets = targets_of(a, begin, rows);
    write_row_numbers(t, a, targets, {at(a.logprob), at(a.max), at(a.log_sum)});
    if (a.entropy != nullptr) vector(a.entropy + begin, rows).copy_(entropy_of(t));
    if (a.top_k > 0) write_top_k(t, a, begin);
    if (a.reference.hidden == nullptr) return;
    const ReferenceHead& r = a.reference;
    const Tile q = reference_tile(a, begin, rows);
    write_row_numbers(q, a, targets, {at(r.logprob), at(r.max), at(r.log_sum)});
    vector(r.kl + begin, rows).copy_(kl_of(t, q));
  });
}

void linear_logprob_backward(const LinearLogprobBackwardArgs& g) {
  const LinearLogprobArgs& a = g.forward;
  at::Tensor dweight;
  for_each_tile(a.rows, [&](int64_t begin, int64_t rows) {
    const Tile t = policy_tile(a, begin, rows);
    const auto coefficient = [&](const float* p) { return vector(p + begin, rows).unsqueeze(-1); };
    const at::Tensor dlogprob = coefficient(g.dlogprob);
    at::Tensor dz = (-dlogprob * t.p).scatter_add(1, targets_of(a, begin, rows), dlogprob);
    at::Tensor active = dlogprob != 0;
    if (g.dentropy != nullptr) {
      const at::Tensor e = coefficient(g.dentropy);
      dz = dz - e * t.p * (t.logprobs + entropy_of(t).unsqueeze(-1));
      active = active.logical_or(e != 0);
    }
    if (g.dkl != nullptr) {
      const at::Tensor c = coefficient(g.dkl);
      const Tile q = reference_tile(a, begin, rows);
      dz = dz + c * t.p * (t.logprobs - q.logprobs - kl_of(t, q).unsqueeze(-1));
      active = active.logical_or(c != 0);
    }
    dz = dz * double{a.inverse_temperature};
    if (a.softcap > 0) {
      const at::Tensor slope = 1 - (t.logits / double{a.softcap}).square();
      dz = at::where(t.p > 0, dz * slope, 0.0);  // Outside the support the logit is -inf.
    }
    // Rows without any coefficient reach nothing, whatever stands in them.
    dz = operand(at::where(active, dz, 0.0), a.head.product);
    matrix(g.dhidden + begin * g.dhidden_stride, rows, a.head.k, g.dhidden_stride)
        .copy_(dz.matmul(weight(a.head)));
    if (g.dweight == nullptr) return;
    const at::Tensor hidden = operand(at::where(active, t.hidden, 0.0), a.head.product);
    const at::Tensor part = dz.t().matmul(hidden);
    dweight = dweight.defined() ? dweight.add_(part) : part;
  });
  if (dweight.defined()) add_to_panels(g.dweight, dweight);
}

}  // namespace temper::ops::reference
