#pragma once

#include <optional>
#include <string>

#include "temper/core/config.h"
#include "temper/objective/aggregate.h"
#include "temper/objective/kl.h"
#include "temper/objective/metric_tensors.h"
#include "temper/objective/policy_tokens.h"
#include "temper/objective/ratio.h"

namespace temper {

/// Settings that every policy loss shares. A loss adds its own by deriving and extending `visit`.
struct PolicyLossConfig {
  std::string importance_level = "token";
  double kl_coef = 0;
  std::string kl_estimator = "k3";
  bool kl_bias_correction = true;
  double entropy_coef = 0;
  double off_policy_threshold = -1;

  template <class V>
  void visit(V&& v) {
    v(importance_level, "importance_level",
      "What one importance ratio belongs to: a token, or a whole completion (GSPO).",
      {"token", "sequence"});
    v(kl_coef, "kl_coef", "Weight of KL(policy || reference) per token; 0: off, no reference.");
    v(kl_estimator, "kl_estimator", "Estimator of that KL.", {"k1", "k2", "k3"});
    v(kl_bias_correction, "kl_bias_correction",
      "Multiply the KL by the importance ratio, so that its gradient is the reverse KL's.");
    v(entropy_coef, "entropy_coef", "Weight of the mean entropy that is added to the objective.");
    v(off_policy_threshold, "off_policy_threshold",
      "Drop completions with A < 0 whose mean log(old / current), nats a token, is above this; "
      "negative: off.");
  }
};

/// Settings of the losses that clip the ratio.
struct ClippedLossConfig : PolicyLossConfig {
  double clip_low = 0.2;
  double clip_high = -1;
  double delta = -1;

  template <class V>
  void visit(V&& v) {
    v(clip_low, "clip_low", "Ratios below 1 - clip_low are not pushed down further, in [0, 1].");
    v(clip_high, "clip_high",
      "Ratios above 1 + clip_high are not pushed up further (DAPO: 0.28); negative: clip_low.");
    v(delta, "delta",
      "Bound of the ratio where A < 0 (two-sided clipping): above 1, best above 1 + clip_high; "
      "negative: off.");
    PolicyLossConfig::visit(v);
  }
};

/// `PolicyLossConfig` with its words read and its sentinels resolved, once, at construction.
struct PolicyTerms {
  /// @throws Error for a word outside the field's choices, a negative coefficient or a NaN.
  explicit PolicyTerms(const PolicyLossConfig& config);

  ImportanceLevel level = ImportanceLevel::kToken;
  double kl_coef = 0;
  KlEstimator kl_estimator = KlEstimator::kK3;
  bool kl_bias_correction = true;
  double entropy_coef = 0;
  std::optional<double> off_policy_threshold;
};

/// The clip range of a config. @throws Error if a bound is out of its range.
[[nodiscard]] ClipRange clip_range(const ClippedLossConfig& config);

/// Everything that surrounds a loss per token: `token_loss` [N] (without KL, to be minimised) is
/// masked by the off-policy and entropy rules, the KL term is added (never masked by those two;
/// its weight is `kl_coef * totals.kl_scale`),
/// the sum is aggregated, and the entropy bonus is subtracted. `metrics` are the loss's own; added
/// are `kl`, `kl/k1`, `kl/k2`, `kl/k3` (with a reference), `entropy` (where the batch carries it)
/// and `policy_loss` (the loss before the entropy bonus). The loss is a float64 scalar.
[[nodiscard]] LossOutput policy_loss(const PolicyTokens& t, const PolicyTerms& terms,
                                     const ImportanceRatio& ratio, const at::Tensor& token_loss,
                                     Aggregation aggregation, MetricTensors metrics = {});

/// Adds `clip_ratio/{low_mean,low_min,high_mean,high_max,region_mean}`: by active tokens, or at
/// sequence level by completions; `low_min` and `high_max` are extremes over completions.
void add_clip_metrics(MetricTensors& metrics, const PolicyTokens& t, const ImportanceRatio& ratio,
                      const ClipRange& range);

/// The whole of a clipped loss: ratio, `clipped_surrogate`, `policy_loss` and
/// `add_clip_metrics`.
[[nodiscard]] LossOutput clipped_policy_loss(const RolloutBatch& batch, const PolicyTerms& terms,
                                             const ClipRange& range, Aggregation aggregation);

}  // namespace temper
