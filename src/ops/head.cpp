// Log-probs over the LM head, a tile of rows at a time: all logits of a batch would not fit.
#include "reference_ops.h"

namespace temper::ops::reference {

using namespace kernels;

namespace {

/// Rows [begin, begin + rows) of a call, with their logits.
struct Tile {
  int64_t begin;
  int64_t rows;
  at::Tensor hidden;    // [rows, k]
  at::Tensor scaled;    // [rows, vocabulary] logits / T
  at::Tensor logprobs;  // [rows, vocabulary]
  at::Tensor targets;   // [rows, 1]
};

template <class Body>
void for_each_tile(const LinearLogprobArgs& a, const Body& body) {
  const at::Tensor head = weight(a.head);
  for (int64_t begin = 0; begin < a.rows; begin += kHeadTileRows) {
    Tile t{begin, std::min(kHeadTileRows, a.rows - begin), {}, {}, {}, {}};
    t.hidden = matrix(a.hidden + begin * a.hidden_stride, t.rows, a.head.k, a.hidden_stride);
    t.scaled = operand(t.hidden, a.head.product).matmul(head.t()) * double{a.inverse_temperature};
    t.logprobs = t.scaled.log_softmax(-1);
    t.targets = index({a.targets + begin, static_cast<size_t>(t.rows)}).unsqueeze(-1);
    body(t, head);
  }
}

at::Tensor entropy_of(const at::Tensor& logprobs) { return -(logprobs.exp() * logprobs).sum(-1); }

}  // namespace

void linear_logprob(const LinearLogprobArgs& a) {
  for_each_tile(a, [&](const Tile& t, const at::Tensor&) {
    const auto write = [&](float* to, const at::Tensor& values) {
      if (to != nullptr) vector(to + t.begin, t.rows).copy_(values);
    };
    const at::Tensor max = t.scaled.amax(-1);
    write(a.logprob, t.logprobs.gather(1, t.targets).squeeze(-1));
    write(a.entropy, entropy_of(t.logprobs));
    write(a.max, max);
    write(a.log_sum, (t.scaled - max.unsqueeze(-1)).exp().sum(-1).log());
  });
}

void linear_logprob_backward(const LinearLogprobBackwardArgs& g) {
  const LinearLogprobArgs& a = g.forward;
  at::Tensor dweight;
  for_each_tile(a, [&](const Tile& t, const at::Tensor& head) {
    const at::Tensor p = t.logprobs.exp();
    const at::Tensor dlogprob = vector(g.dlogprob + t.begin, t.rows).unsqueeze(-1);
    at::Tensor dz = (-dlogprob * p).scatter_add(1, t.targets, dlogprob);
    if (g.dentropy != nullptr) {
      const at::Tensor e = vector(g.dentropy + t.begin, t.rows).unsqueeze(-1);
      dz = dz - e * p * (t.logprobs + entropy_of(t.logprobs).unsqueeze(-1));
    }
    dz = dz * double{a.inverse_temperature};
    matrix(g.dhidden + t.begin * g.dhidden_stride, t.rows, a.head.k, g.dhidden_stride)
        .copy_(operand(dz, a.head.product).matmul(head));
    if (g.dweight == nullptr) return;
    const at::Tensor part = dz.t().matmul(t.hidden);
    dweight = dweight.defined() ? dweight.add_(part) : part;
  });
  if (dweight.defined()) add_to_panels(g.dweight, dweight);
}

}  // namespace temper::ops::reference
