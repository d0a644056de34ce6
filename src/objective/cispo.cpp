#include "temper/objective/cispo.h"

#include <ATen/ops/clamp_max.h>

#include "temper/core/error.h"

namespace temper {

Cispo::Cispo(const Config& config) : terms_(config), ratio_max_(config.ratio_max) {
  TEMPER_CHECK(ratio_max_ > 1, "[cispo] ratio_max is a bound of the ratio itself and must be ",
               "above 1 (try 5), got ", ratio_max_);
}

LossOutput Cispo::operator()(const RolloutBatch& batch) const {
  const PolicyTokens t = policy_tokens(batch);
  const ImportanceRatio ratio = importance_ratio(t, terms_.level);
  const at::Tensor weight = at::clamp_max(ratio.tokens.detach(), ratio_max_);

  MetricTensors metrics;
  const bool per_row = ratio.rows.defined() && t.row_advantages.defined();
  const at::Tensor& w = per_row ? ratio.rows : ratio.tokens;
  const at::Tensor& a = per_row ? t.row_advantages : t.advantages;
  const at::Tensor clipped = (w > ratio_max_).logical_and(a > 0).to(at::kDouble);
  per_row ? metrics.add_row_mean("cispo_clip_ratio", t, clipped)
          : metrics.add_token_mean("cispo_clip_ratio", t, clipped);

  return policy_loss(t, terms_, ratio, -weight * t.advantages * t.logprobs, &token_mean,
                     std::move(metrics));
}

}  // namespace temper
