#include "temper/objective/policy_loss.h"

#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "temper/core/error.h"

namespace temper {
namespace {

ImportanceLevel parse_level(const std::string& word) {
  if (word == "token") return ImportanceLevel::kToken;
  if (word == "sequence") return ImportanceLevel::kSequence;
  fail("[objective] importance_level must be \"token\" or \"sequence\", got \"", word, "\"");
}

KlEstimator parse_estimator(const std::string& word) {
  if (word == "k1") return KlEstimator::kK1;
  if (word == "k2") return KlEstimator::kK2;
  if (word == "k3") return KlEstimator::kK3;
  fail("[objective] kl_estimator must be \"k1\", \"k2\" or \"k3\", got \"", word, "\"");
}

void check_coefficient(double value, const char* name) {
  TEMPER_CHECK(std::isfinite(value) && value >= 0, "[objective] ", name,
               " must be finite and at least 0, got ", value);
}

std::optional<double> resolve(double value, const char* name) {
  TEMPER_CHECK(!std::isnan(value), "[objective] ", name, " is NaN; a negative value means off");
  return value < 0 ? std::nullopt : std::optional<double>(value);
}

/// 1 for tokens whose policy term counts, or undefined when all do.
at::Tensor kept_tokens(const PolicyTokens& t, const PolicyTerms& terms, const at::Tensor& top) {
  if (!terms.off_policy_threshold) return top;
  const at::Tensor recent = off_policy_mask(t, *terms.off_policy_threshold);
  return top.defined() ? recent * top : recent;
}

at::Tensor entropy_bonus(const PolicyTokens& t, const at::Tensor& top) {
  TEMPER_CHECK(t.entropy.defined(),
               "[objective] entropy_coef is set, so the batch must carry entropy");
  const at::Tensor kept = top.defined() ? t.entropy * top : t.entropy;
  const double tokens = t.totals.entropy_tokens < 0 ? t.totals.tokens : t.totals.entropy_tokens;
  return (kept * t.mask).sum() / std::max(tokens, 1.0);
}

void add_kl_metrics(MetricTensors& metrics, const PolicyTokens& t) {
  metrics.add_token_mean("kl/k1", t, kl_tokens(t, KlEstimator::kK1));
  metrics.add_token_mean("kl/k2", t, kl_tokens(t, KlEstimator::kK2));
  metrics.add_token_mean("kl/k3", t, kl_tokens(t, KlEstimator::kK3));
}

}  // namespace

PolicyTerms::PolicyTerms(const PolicyLossConfig& c)
    : level(parse_level(c.importance_level)),
      kl_coef(c.kl_coef),
      kl_estimator(parse_estimator(c.kl_estimator)),
      kl_bias_correction(c.kl_bias_correction),
      entropy_coef(c.entropy_coef),
      off_policy_threshold(resolve(c.off_policy_threshold, "off_policy_threshold")) {
  check_coefficient(kl_coef, "kl_coef");
  TEMPER_CHECK(std::isfinite(entropy_coef), "[objective] entropy_coef must be finite, got ",
               entropy_coef);
}

ClipRange clip_range(const ClippedLossConfig& c) {
  TEMPER_CHECK(c.clip_low >= 0 && c.clip_low <= 1, "[objective] clip_low must be in [0, 1], got ",
               c.clip_low);
  const ClipRange range{c.clip_low, resolve(c.clip_high, "clip_high").value_or(c.clip_low),
                        resolve(c.delta, "delta")};
  TEMPER_CHECK(!range.delta || *range.delta > 1, "[objective] delta bounds the ratio from above ",
               "and must be above 1, got ", range.delta.value_or(0), "; a negative value is off");
  return range;
}

LossOutput policy_loss(const PolicyTokens& t, const PolicyTerms& terms,
                       const ImportanceRatio& ratio, const at::Tensor& token_loss,
                       Aggregation aggregation, MetricTensors metrics) {
  constexpr double kNoThreshold = -std::numeric_limits<double>::infinity();
  const at::Tensor top =
      t.totals.entropy_threshold == kNoThreshold ? at::Tensor() : entropy_mask(t);
  const at::Tensor kept = kept_tokens(t, terms, top);
  at::Tensor per_token = kept.defined() ? token_loss * kept : token_loss;
  if (terms.kl_coef != 0) {
    const at::Tensor kl = terms.kl_bias_correction
                              ? corrected_kl_tokens(t, terms.kl_estimator, ratio)
                              : kl_tokens(t, terms.kl_estimator);
    per_token = per_token + terms.kl_coef * t.totals.kl_scale * kl;
    metrics.add_token_mean("kl", t, kl);
  }
  if (t.ref_logprobs.defined()) add_kl_metrics(metrics, t);
  if (t.entropy.defined()) metrics.add_token_mean("entropy", t, t.entropy);

  at::Tensor loss = (per_token * aggregation(t)).sum();
  metrics.add_share("policy_loss", t, loss);
  if (terms.entropy_coef != 0) loss = loss - terms.entropy_coef * entropy_bonus(t, top);
  return {loss, metrics.read()};
}

void add_clip_metrics(MetricTensors& metrics, const PolicyTokens& t, const ImportanceRatio& ratio,
                      const ClipRange& range) {
  const bool per_row = ratio.rows.defined() && t.row_advantages.defined();
  const ClipFlags flags = per_row ? clip_flags(ratio.rows, t.row_advantages, range)
                                  : clip_flags(ratio.tokens, t.advantages, range);
  const auto add = [&](const std::string& name, const at::Tensor& values) {
    per_row ? metrics.add_row_mean(name, t, values) : metrics.add_token_mean(name, t, values);
  };
  add("clip_ratio/low_mean", flags.low);
  add("clip_ratio/high_mean", flags.high);
  add("clip_ratio/region_mean", flags.low + flags.high);
  if (per_row) {
    metrics.add_min("clip_ratio/low_min", flags.low);
    metrics.add_max("clip_ratio/high_max", flags.high);
    return;
  }
  // A fully masked completion has no share of clipped tokens.
  constexpr double kNone = std::numeric_limits<double>::infinity();
  const at::Tensor full = t.lengths > 0;
  metrics.add_min("clip_ratio/low_min", at::where(full, t.mean_rows(flags.low), kNone));
  metrics.add_max("clip_ratio/high_max", at::where(full, t.mean_rows(flags.high), -kNone));
}

LossOutput clipped_policy_loss(const RolloutBatch& batch, const PolicyTerms& terms,
                               const ClipRange& range, Aggregation aggregation) {
  const PolicyTokens t = policy_tokens(batch);
  const ImportanceRatio ratio = importance_ratio(t, terms.level);
  MetricTensors metrics;
  add_clip_metrics(metrics, t, ratio, range);
  return policy_loss(t, terms, ratio, clipped_surrogate(ratio.tokens, t.advantages, range),
                     aggregation, std::move(metrics));
}

}  // namespace temper
