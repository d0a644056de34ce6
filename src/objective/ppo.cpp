#include "temper/objective/ppo.h"

#include <ATen/ops/clamp.h>
#include <ATen/ops/expm1.h>

#include <limits>

#include "temper/core/error.h"

namespace temper {
namespace {

/// Dual clipping bounds -w A by -c A where A < 0. With c above the clip range that is the bound of
/// the ratio that two-sided clipping has.
ClipRange dual_clip_range(const Ppo::Config& c) {
  ClippedLossConfig clipped;
  clipped.clip_low = c.clip_low;
  clipped.clip_high = c.clip_high;
  ClipRange range = clip_range(clipped);
  if (c.dual_clip < 0) return range;
  TEMPER_CHECK(c.dual_clip > 1 + range.high, "[ppo] dual_clip must be above 1 + clip_high = ",
               1 + range.high, ", got ", c.dual_clip, "; a negative value is off");
  range.delta = c.dual_clip;
  return range;
}

void add_ratio_metrics(MetricTensors& metrics, const PolicyTokens& t, const at::Tensor& ratio) {
  const at::Tensor d = at::clamp(t.log_ratio.detach(), -kMaxLogRatio, kMaxLogRatio);
  metrics.add_token_mean("policy/approxkl_avg", t, 0.5 * d * d);
  metrics.add_token_mean("policy/kl_old_new", t, at::expm1(d) - d);
  metrics.add_token_mean("actor/ppo_kl", t, -d);
  const at::Tensor off = ratio - 1;
  metrics.add_token_mean("val/ratio", t, ratio);
  metrics.add_token_mean("val/ratio_var", t, off * off);
  if (t.entropy.defined()) metrics.add_token_mean("policy/entropy_avg", t, t.entropy);
}

}  // namespace

Ppo::Ppo(const Config& config) : terms_(config), range_(dual_clip_range(config)) {}

LossOutput Ppo::operator()(const RolloutBatch& batch) const {
  const PolicyTokens t = policy_tokens(batch);
  const ImportanceRatio ratio = importance_ratio(t, terms_.level);
  const at::Tensor loss = clipped_surrogate(ratio.tokens, t.advantages, range_);

  MetricTensors metrics;
  add_clip_metrics(metrics, t, ratio, range_);
  const at::Tensor w = ratio.tokens.detach();
  const ClipFlags flags = clip_flags(w, t.advantages, range_);
  const at::Tensor clipped = flags.low + flags.high;
  metrics.add_token_mean("policy/clipfrac_avg", t, clipped);
  metrics.add_token_mean("actor/pg_clipfrac", t, clipped);
  const double bound = range_.delta.value_or(std::numeric_limits<double>::infinity());
  metrics.add_token_mean("actor/pg_clipfrac_lower", t,
                         (w > bound).logical_and(t.advantages < 0).to(at::kDouble));
  metrics.add_token_mean("loss/policy_avg", t, loss);
  metrics.add_token_mean("actor/pg_loss", t, loss);
  add_ratio_metrics(metrics, t, w);
  return policy_loss(t, terms_, ratio, loss, &token_mean, std::move(metrics));
}

}  // namespace temper
