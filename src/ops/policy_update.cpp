// The ops around a policy update, in float64 as the kernels are.
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

#include "reference_ops.h"

namespace temper::ops::reference {

using namespace kernels;

namespace {

at::Tensor doubles(const float* p, int64_t n) { return vector(p, n).to(at::kDouble); }

at::Tensor active(const uint8_t* mask, int64_t n) {
  if (mask == nullptr) return at::ones({n}, at::kBool);
  return at::from_blob(const_cast<uint8_t*>(mask), {n}, at::kByte) != 0;
}

/// Calls `body(sequence, first token, tokens, indices of the active ones among them)`.
template <class Body>
void for_sequences(const int64_t* offsets, int64_t sequences, const uint8_t* mask,
                   const Body& body) {
  for (int64_t i = 0; i < sequences; ++i) {
    const int64_t first = offsets[i], n = offsets[i + 1] - offsets[i];
    const uint8_t* own = mask == nullptr ? nullptr : mask + first;
    body(i, first, n, active(own, n).nonzero().squeeze(-1));
  }
}

struct KlTensors {
  at::Tensor value, slope;
};

KlTensors kl_terms(const KlPenaltyArgs& a) {
  if (a.estimator == KlEstimator::kExact) {
    const at::Tensor kl = doubles(a.exact, a.tokens);
    return {kl, at::zeros_like(kl)};
  }
  const at::Tensor d = doubles(a.logprobs, a.tokens) - doubles(a.ref_logprobs, a.tokens);
  if (a.estimator == KlEstimator::kK1) return {d, at::ones_like(d)};
  if (a.estimator == KlEstimator::kK2) return {d.square() / 2, d};
  if (a.estimator == KlEstimator::kAbsolute) return {d.abs(), d.sign()};
  const at::Tensor x = (-d).clamp(-kMaxLogRatio, kMaxLogRatio);
  // The difference loses digits near 0, where the series x^2/2 + x^3/6 + x^4/24 is exact enough.
  const at::Tensor series = x.square() * (0.5 + x / 6 + x.square() / 24);
  return {at::where(x.abs() < 1e-4, series, x.expm1() - x), -x.expm1()};
}

}  // namespace

void kl_penalty(const KlPenaltyArgs& a) {
  const KlTensors kl = kl_terms(a);
  const at::Tensor on = active(a.mask, a.tokens);
  vector(a.kl, a.tokens).copy_(at::where(on, kl.value, 0.0));
  if (a.dlogprobs != nullptr) vector(a.dlogprobs, a.tokens).copy_(at::where(on, kl.slope, 0.0));
}

void shape_rewards(const ShapeRewardsArgs& a) {
  for_sequences(a.offsets, a.sequences, a.mask,
                [&](int64_t i, int64_t first, int64_t n, const at::Tensor& on) {
                  at::Tensor rewards = at::zeros_like(vector(a.rewards + first, n), at::kDouble);
                  if (a.kl != nullptr) {
                    rewards.index_add_(0, on, -a.kl_coef * doubles(a.kl + first, n).take(on));
                  }
                  at::Tensor score = doubles(a.scores + i, 1);
                  if (a.score_clip > 0) score = score.clamp(-a.score_clip, a.score_clip);
                  if (on.numel() > 0) rewards.index_add_(0, on.slice(0, -1), score);
                  vector(a.rewards + first, n).copy_(rewards);
                });
}

void gae(const GaeArgs& a) {
  for_sequences(
      a.offsets, a.sequences, a.mask,
      [&](int64_t i, int64_t first, int64_t n, const at::Tensor& on) {
        const at::Tensor value = doubles(a.values + first, n).take(on);
        const bool cut = a.truncated != nullptr && a.truncated[i] != 0;
        // Sums of discounted deltas: row t of the matrix holds (gamma lambda)^(s - t) for s >= t.
        const at::Tensor next = value.roll(-1);
        if (on.numel() > 0) next.slice(0, -1).fill_(cut ? double{a.bootstrap_values[i]} : 0.0);
        const at::Tensor delta = doubles(a.rewards + first, n).take(on) + a.gamma * next - value;
        const at::Tensor t = at::arange(on.numel(), at::kDouble);
        const at::Tensor steps = (t - t.unsqueeze(-1)).clamp_min(0);
        const at::Tensor powers = at::full({}, a.gamma * a.lambda, at::kDouble).pow(steps).triu();
        const at::Tensor advantage = powers.matmul(delta);
        const auto write = [&](float* to, const at::Tensor& values) {
          vector(to + first, n).zero_().index_copy_(0, on, values.to(at::kFloat));
        };
        write(a.advantages, advantage);
        if (a.returns != nullptr) write(a.returns, advantage + value);
      });
}

void group_advantages(const GroupAdvantagesArgs& a) {
  for (int64_t g = 0; g < a.groups; ++g) {
    const int64_t first = a.offsets[g], rows = a.offsets[g + 1] - first;
    const at::Tensor rewards =
        at::from_blob(const_cast<double*>(a.rewards) + first, {rows}, at::kDouble).clone();
    const at::Tensor scored = rewards.masked_select(rewards.isnan().logical_not());
    GroupStat s{std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN(),
                scored.numel(), false};
    if (s.count > 0) {
      s.equal = scored.min().item<double>() == scored.max().item<double>();
      s.mean = s.equal ? scored.min().item<double>() : scored.mean().item<double>();
    }
    if (s.count > 1) s.std = s.equal ? 0 : scored.std().item<double>();
    if (rows == 1) s.std = 0;
    if (a.stats != nullptr) a.stats[g] = s;
    if (a.advantages == nullptr) continue;
    at::Tensor result = rewards - s.mean;
    if (a.rule == GroupRule::kStandardized) result = result / (s.std + a.eps);
    if (a.rule == GroupRule::kLeaveOneOut) {
      const auto n = static_cast<double>(s.count);
      result = s.count < 2 ? at::zeros_like(result) : result * (n / (n - 1));
    }
    at::from_blob(a.advantages + first, {rows}, at::kDouble).copy_(result.nan_to_num(0.0));
  }
}

MaskedStats masked_stats(const float* x, const uint8_t* mask, int64_t count) {
  const at::Tensor values = doubles(x, count).masked_select(active(mask, count));
  MaskedStats s;
  s.count = values.numel();
  if (s.count == 0) return s;
  s.sum = values.sum().item<double>();
  s.mean = values.mean().item<double>();
  if (s.count > 1) s.variance = values.var().item<double>();
  return s;
}

void whiten(const WhitenArgs& a) {
  const MaskedStats& s = *a.stats;
  const at::Tensor y = (doubles(a.x, a.count) - s.mean) / std::sqrt(s.variance + a.eps);
  const at::Tensor shifted = a.shift_mean ? y : y + s.mean;
  vector(a.y, a.count).copy_(at::where(active(a.mask, a.count), shifted, 0.0));
}

}  // namespace temper::ops::reference
