#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/policy_loss.h"

namespace temper {

/// PPO's policy loss (Schulman et al. 2017, eq. 7), averaged over the tokens of the optimizer step,
/// optionally with dual clipping (Ye et al. 2020, arXiv 1912.09729): where A < 0 the loss is at
/// most -A c.
///
/// `loss = 1/N sum -min(w A, clip(w) A)`, N active tokens of the step.
///
/// Metrics, all means over active tokens: `policy/approxkl_avg` (D^2 / 2, D = lp - old),
/// `policy/kl_old_new` (w - 1 - D: k3 of KL(old || new), for stopping early),
/// `policy/clipfrac_avg` = `actor/pg_clipfrac`, `actor/pg_clipfrac_lower` (share where dual
/// clipping binds), `policy/entropy_avg` (with an entropy), `val/ratio`, `val/ratio_var`
/// ((w - 1)^2: the variance about the mean that w has under the old policy), `loss/policy_avg` =
/// `actor/pg_loss` (the loss without KL and entropy terms), `actor/ppo_kl` (-D); and `clip_ratio/*`
/// as the other clipped losses.
class Ppo {
 public:
  struct Config : PolicyLossConfig {
    double clip_low = 0.2;
    double clip_high = -1;
    double dual_clip = -1;
    template <class V>
    void visit(V&& v) {
      v(clip_low, "clip_low", "Ratios below 1 - clip_low are not pushed down further, in [0, 1].");
      v(clip_high, "clip_high",
        "Ratios above 1 + clip_high are not pushed up further; negative: clip_low.");
      v(dual_clip, "dual_clip",
        "Bound of the ratio where A < 0, above 1 + clip_high (usually 3); negative: off.");
      PolicyLossConfig::visit(v);
    }
  };
  using Batch = RolloutBatch;

  /// @throws Error for a bound out of its range.
  explicit Ppo(const Config& config);
  Ppo() : Ppo(Config{}) {}
  [[nodiscard]] LossOutput operator()(const RolloutBatch& batch) const;

 private:
  PolicyTerms terms_;
  ClipRange range_;
};
static_assert(RolloutLossType<Ppo>);

}  // namespace temper
