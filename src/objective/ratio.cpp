#include "temper/objective/ratio.h"

#include <ATen/ops/clamp.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/minimum.h>

#include "temper/core/error.h"

namespace temper {

ImportanceRatio importance_ratio(const PolicyTokens& t, ImportanceLevel level) {
  const auto bounded_exp = [](const at::Tensor& x) {
    return at::exp(at::clamp(x, -kMaxLogRatio, kMaxLogRatio));
  };
  ImportanceRatio ratio;
  if (level == ImportanceLevel::kSequence) {
    ratio.rows = bounded_exp(t.mean_rows(t.log_ratio));
    ratio.tokens = t.spread(ratio.rows);
  } else {
    ratio.tokens = bounded_exp(t.log_ratio);
  }
  return ratio;
}

at::Tensor clipped_surrogate(const at::Tensor& ratio, const at::Tensor& advantages,
                             const ClipRange& range) {
  const at::Tensor clipped = at::clamp(ratio, 1 - range.low, 1 + range.high);
  const at::Tensor followed = range.delta ? at::clamp_max(ratio, *range.delta) : ratio;
  return -at::minimum(followed * advantages, clipped * advantages);
}

ClipFlags clip_flags(const at::Tensor& ratio, const at::Tensor& advantages,
                     const ClipRange& range) {
  const at::Tensor w =
      range.delta ? at::clamp_max(ratio.detach(), *range.delta) : ratio.detach();
  return {(w < 1 - range.low).logical_and(advantages < 0).to(at::kDouble),
          (w > 1 + range.high).logical_and(advantages > 0).to(at::kDouble)};
}

at::Tensor off_policy_mask(const PolicyTokens& t, double threshold) {
  // Mean log(old / current) over the sampled tokens estimates KL(old || current).
  const at::Tensor drift = -t.mean_rows(t.log_ratio.detach());
  return (t.advantages >= 0).logical_or(t.spread(drift) <= threshold).to(at::kDouble);
}

at::Tensor entropy_mask(const PolicyTokens& t) {
  TEMPER_CHECK(t.entropy.defined(),
               "[objective] totals.entropy_threshold is set, so the batch must carry entropy");
  return (t.entropy.detach() >= t.totals.entropy_threshold).to(at::kDouble);
}

}  // namespace temper
