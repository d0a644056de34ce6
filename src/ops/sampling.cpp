// Drawing a token: transformers' order of the rules, then the inverse of the cumulative sum.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <limits>
#include <set>

#include "reference_ops.h"

namespace temper::ops::reference {

using namespace kernels;

namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

double inverse_temperature(const SamplingParams& p) {
  return p.temperature == 0 ? 1.0 : double{1.0f / p.temperature};
}

at::Tensor penalized(const at::Tensor& logits, float penalty, std::span<const int32_t> seen) {
  if (penalty == 1.0f || seen.empty()) return logits;
  const at::Tensor ids = index(seen);
  const at::Tensor old = logits.index_select(0, ids);
  return logits.index_copy(0, ids,
                           at::where(old > 0, old / double{penalty}, old * double{penalty}));
}

/// Raw logits [vocabulary] with -inf for what may not be drawn.
at::Tensor filtered(const at::Tensor& raw, const SamplingParams& p, std::span<const int32_t> seen) {
  at::Tensor z = penalized(raw, p.repetition_penalty, seen);
  if (p.temperature == 0) return z;
  const auto drop = [&](const at::Tensor& what) { z = z.masked_fill(what, kMinusInfinity); };
  if (p.top_k > 0 && p.top_k < z.numel()) {
    drop(z < std::get<0>(z.topk(p.top_k)).select(0, p.top_k - 1));
  }
  if (p.top_p < 1) {
    // From the least likely on; of equals the higher id goes first. The likeliest always stays.
    const auto [sorted, order] = (z * inverse_temperature(p)).sort(true, 0, true);
    const at::Tensor below = sorted.to(at::kDouble).softmax(0).flip(0).cumsum(0).flip(0);
    at::Tensor cut = below <= 1.0 - double{p.top_p};
    cut.select(0, 0).fill_(false);
    drop(cut.scatter(0, order, cut));
  }
  if (p.min_p > 0) drop((z - z.max()) * inverse_temperature(p) < std::log(p.min_p));
  return z;
}

int32_t drawn(const at::Tensor& z, const SamplingParams& p, double uniform) {
  if (p.temperature == 0) return static_cast<int32_t>(z.argmax().item<int64_t>());
  const at::Tensor probability = (z * inverse_temperature(p)).to(at::kDouble).softmax(0);
  const at::Tensor reached = probability.cumsum(0) <= uniform;
  const at::Tensor last = probability.gt(0).nonzero().max();  // Where rounding leaves a remainder.
  return static_cast<int32_t>(std::min(reached.sum().item<int64_t>(), last.item<int64_t>()));
}

SampledToken sample_row(const at::Tensor& raw, int64_t allowed, const SampleRow& row) {
  const SamplingParams& p = *row.params;
  const at::Tensor policy = (raw * inverse_temperature(p)).log_softmax(0);
  at::Tensor z = raw.clone();
  z.narrow(0, allowed, raw.numel() - allowed).fill_(kMinusInfinity);
  z = filtered(z, p, row.seen);
  const auto at_id = [](const at::Tensor& values, int32_t id) {
    return values.select(0, id).item<float>();
  };
  SampledToken t;
  t.id = drawn(z, p, row.uniform);
  t.policy_logprob = at_id(policy, t.id);
  t.entropy = (-policy.exp() * policy).nansum().item<float>();
  t.logprob = p.temperature == 0 ? 0 : at_id((z * inverse_temperature(p)).log_softmax(0), t.id);
  const at::Tensor kept = policy.masked_fill(z == kMinusInfinity, kMinusInfinity);
  t.log_kept_mass = p.temperature == 0 ? t.policy_logprob : kept.logsumexp(0).item<float>();
  return t;
}

}  // namespace

void linear_sample(const LinearSampleArgs& a) {
  const int64_t rows = std::ssize(a.rows);
  const at::Tensor hidden = matrix(a.hidden, rows, a.head.k, a.hidden_stride);
  const at::Tensor logits = policy_logits(hidden, a.head, a.softcap, a.support);
  for (int64_t r = 0; r < rows; ++r) {
    const auto at = static_cast<size_t>(r);
    a.out[at] = sample_row(logits.select(0, r), a.allowed, a.rows[at]);
  }
}

void sampling_distribution(std::span<const float> logits, const SamplingParams& p,
                           std::span<const int32_t> seen, std::span<float> probabilities) {
  const int64_t n = std::ssize(logits);
  const at::Tensor z = filtered(vector(logits.data(), n), p, seen);
  at::Tensor out = vector(probabilities.data(), n);
  if (p.temperature == 0) {
    out.zero_().select(0, z.argmax().item<int64_t>()).fill_(1);
  } else {
    out.copy_((z * inverse_temperature(p)).to(at::kDouble).softmax(0));
  }
}

}  // namespace temper::ops::reference
