#pragma once

#include <cstdint>
#include <string>

namespace temper {

/// Settings of `KlController`. The unit of `target` is that of the KL given to `update`: nats a
/// completion (the mean over rows of the sum over tokens), for which the default is meant.
struct KlControllerConfig {
  std::string kind = "fixed";
  double target = 6;
  double horizon = 10000;
  double step = 0.1;
  double min = 1e-6;
  double max = 10;

  template <class V>
  void visit(V&& v) {
    v(kind, "kind", "How the KL coefficient follows the measured KL.",
      {"fixed", "adaptive", "dual"});
    v(target, "target", "KL to hold, nats a completion (mean over rows of the sum over tokens).");
    v(horizon, "horizon", "adaptive: completions over which a full correction is spread.");
    v(step, "step", "dual: change of log coefficient for one nat above the target.");
    v(min, "min", "Smallest coefficient of adaptive and dual, positive.");
    v(max, "max", "Largest coefficient of adaptive and dual.");
  }
};

/// The coefficient of a KL penalty, moved once a rollout by the KL that was measured before the
/// rollout's updates; what `coef` says before an `update` belongs to that rollout.
///
///     adaptive (Ziegler et al. 2019, section 2.2):
///         coef *= 1 + clip(kl / target - 1, +-0.2) sequences / horizon
///     dual (gradient ascent on a Lagrange multiplier, in its logarithm):
///         coef *= exp(step (kl - target))
///
/// Both are then held in [min, max]. A KL above the target raises the coefficient.
class KlController {
 public:
  /// Everything to keep in a checkpoint.
  struct State {
    double coef = 0;
    int64_t updates = 0;
  };

  /// @param initial  coefficient to begin with; in [min, max] unless the kind is fixed.
  /// @throws Error for a setting out of range.
  KlController(const KlControllerConfig& config, double initial);

  [[nodiscard]] double coef() const { return state_.coef; }
  /// @param kl         of the rollout, over all its active tokens and all ranks.
  /// @param sequences  completions of the rollout.
  /// @throws Error if `kl` is not finite or `sequences` is negative.
  void update(double kl, int64_t sequences);

  [[nodiscard]] const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  KlControllerConfig config_;
  State state_;
};

}  // namespace temper
