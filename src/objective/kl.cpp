#include "temper/objective/kl.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/ones_like.h>

#include "temper/core/error.h"

namespace temper {
namespace {

/// `value` in the forward pass, `slope` times the gradient of `x` in the backward pass.
at::Tensor with_slope(const at::Tensor& value, const at::Tensor& slope, const at::Tensor& x) {
  return value.detach() + slope.detach() * (x - x.detach());
}

at::Tensor k3(const at::Tensor& d) {
  // A plain clamp would have slope 0 where the policy is furthest from the reference.
  const at::Tensor bounded =
      with_slope(at::clamp(-d, -kMaxLogRatio, kMaxLogRatio), at::ones_like(d), -d);
  return at::exp(bounded) - 1 - bounded;
}

}  // namespace

at::Tensor kl_tokens(const PolicyTokens& t, KlEstimator estimator) {
  TEMPER_CHECK(t.ref_logprobs.defined(),
               "[objective] a KL term needs reference log-probabilities (ref_logprobs); load a "
               "reference model or set kl_coef to 0");
  const at::Tensor d = t.logprobs - t.ref_logprobs;
  switch (estimator) {
    case KlEstimator::kK1: return d;
    case KlEstimator::kK2: return d * d / 2;
    case KlEstimator::kK3: return k3(d);
    case KlEstimator::kAbsolute: return at::abs(d);
    case KlEstimator::kExact: break;
  }
  fail(
      "[objective] the exact KL is a sum over the vocabulary: it comes from the LM head, not from "
      "the sampled tokens");
}

at::Tensor corrected_kl_tokens(const PolicyTokens& t, KlEstimator estimator,
                               const ImportanceRatio& ratio) {
  const at::Tensor kl = kl_tokens(t, estimator);
  if (estimator == KlEstimator::kK3 && !ratio.rows.defined()) {
    return with_slope(ratio.tokens * kl, ratio.tokens * (t.logprobs - t.ref_logprobs), t.logprobs);
  }
  return ratio.tokens * kl;
}

}  // namespace temper
