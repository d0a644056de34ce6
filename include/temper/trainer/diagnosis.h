#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/trainer/observer.h"

namespace temper {

/// When the diagnosis speaks up and what follows.
struct DiagnosisConfig {
  std::string action = "warn";
  int64_t patience = 5;
  int64_t stop_after = 20;
  int64_t start_steps = 5;
  double dead_groups_share = 0.8;
  double kl_limit = 0.5;
  double kl_growth = 10;
  int64_t negative_kl_steps = 20;
  double entropy_collapse = 0.15;
  double entropy_explosion = 3;
  double grad_spike = 20;
  double length_growth = 3;
  std::vector<std::string> silent;  ///< Kinds that are not reported.

  template <class V>
  void visit(V&& v) {
    v(action, "action", "What follows when a finding lasts for stop_after steps.",
      {"warn", "stop"});
    v(patience, "patience", "Steps in a row before a slow finding is reported, at least 1.");
    v(stop_after, "stop_after",
      "Steps in a row of one finding after which action stop ends the run.");
    v(start_steps, "start_steps", "First steps whose mean stands for the start of the run.");
    v(dead_groups_share, "dead_groups_share",
      "Share of groups with equal rewards that is too much, in (0, 1].");
    v(kl_limit, "kl_limit", "Mean KL per token to the reference that is too much, in nats.");
    v(kl_growth, "kl_growth",
      "Growth of the KL within 10 steps that is too fast, once above a tenth of kl_limit.");
    v(negative_kl_steps, "negative_kl_steps",
      "Steps in a row with a negative KL before that is reported.");
    v(entropy_collapse, "entropy_collapse",
      "Share of the entropy at the start that is too little.");
    v(entropy_explosion, "entropy_explosion",
      "Multiple of the entropy at the start that is too much, once above 1 nat.");
    v(grad_spike, "grad_spike", "Multiple of the usual gradient norm that is a spike.");
    v(length_growth, "length_growth",
      "Multiple of the completion length at the start that is too long.");
    v(silent, "silent", "Kinds of findings that are not to be reported.");
  }
};

/// Reads a run's metrics as they come and says in words what is wrong and what to do about it.
/// Kinds:
///
/// | kind | when |
/// | --- | --- |
/// | truncation | every completion is cut off and rewards do not differ: at once |
/// | dead_groups | all groups have equal rewards for `patience` steps |
/// | mostly_dead_groups | a share of `dead_groups_share` or more has, for `patience` steps |
/// | kl_runaway | KL above `kl_limit` for `patience` steps, or growing by `kl_growth` in 10 steps |
/// | kl_negative | KL below 0 for `negative_kl_steps` steps |
/// | entropy_collapse, entropy_explosion | against the start of the run, for `patience` steps |
/// | reward_nan | a reward is not a number: at once |
/// | grad_nan, grad_spike | gradient norm not finite, or far above the usual: at once |
/// | length_growth | completions far longer than at the start, for `patience` steps |
/// | mismatched_tokens | sampling and training disagree about a token: at once |
/// | note/chosen_falls | once: pairs come apart, and the preferred answers fall below the reference |
/// | note/loss_near_zero | once: a loss near 0 is expected for centred advantages |
///
/// A finding is reported once, and again only after it was gone for `patience` steps; under action
/// "stop" it is reported a second time, with `stop` set, when it lasts for `stop_after` steps.
/// A pure function of the metrics so far: no clock, no randomness. A metric that a step does not
/// have changes nothing. Reads TRL's names, and `frac_reward_nan` (share of rewards that are not
/// numbers).
class Diagnosis {
 public:
  /// @throws Error for a value out of range or an unknown kind in `silent`.
  explicit Diagnosis(DiagnosisConfig config = {});

  /// Takes in the metrics of step `step`.
  /// @return what is to be reported now, in the order of the table.
  [[nodiscard]] std::vector<Alarm> check(int64_t step, const Metrics& metrics);

  /// The whole state, for a checkpoint: a few hundred bytes.
  [[nodiscard]] nlohmann::ordered_json state() const;
  /// Goes on from a state. @throws Error if it is malformed.
  void restore(const nlohmann::ordered_json& state);

 private:
  static constexpr size_t kKlWindow = 10;

  /// How long a finding has lasted, in steps that measured it.
  struct Streak {
    int64_t bad = 0;
    int64_t good = 0;
    bool reported = false;
    bool stopped = false;
  };
  /// The mean of a metric over the first steps of the run.
  struct Baseline {
    double sum = 0;
    int64_t count = 0;
  };
  /// Nothing: not measured. An empty text: fine. Else what is wrong.
  using Verdict = std::optional<std::string>;
  struct Watch {
    const char* kind;
    Verdict (Diagnosis::*look)(const Metrics&) const;
    int64_t patience;
  };

  [[nodiscard]] std::vector<Watch> watches() const;
  [[nodiscard]] Verdict truncation(const Metrics& m) const;
  [[nodiscard]] Verdict dead_groups(const Metrics& m) const;
  [[nodiscard]] Verdict mostly_dead_groups(const Metrics& m) const;
  [[nodiscard]] Verdict kl_runaway(const Metrics& m) const;
  [[nodiscard]] Verdict kl_negative(const Metrics& m) const;
  [[nodiscard]] Verdict entropy_collapse(const Metrics& m) const;
  [[nodiscard]] Verdict entropy_explosion(const Metrics& m) const;
  [[nodiscard]] Verdict reward_nan(const Metrics& m) const;
  [[nodiscard]] Verdict grad_nan(const Metrics& m) const;
  [[nodiscard]] Verdict grad_spike(const Metrics& m) const;
  [[nodiscard]] Verdict length_growth(const Metrics& m) const;
  [[nodiscard]] Verdict mismatched_tokens(const Metrics& m) const;
  [[nodiscard]] Verdict chosen_falls(const Metrics& m) const;
  [[nodiscard]] Verdict loss_near_zero(const Metrics& m) const;

  [[nodiscard]] bool settled(const Baseline& b) const { return b.count >= config_.start_steps; }
  void remember(const Metrics& m);
  void report(const Watch& watch, int64_t step, const std::string& sentence,
              std::vector<Alarm>& out);

  DiagnosisConfig config_;
  std::map<std::string, Streak> streaks_;
  Baseline entropy_;
  Baseline length_;
  Baseline grad_;                 ///< `sum` is a moving mean here.
  std::vector<double> kl_;        ///< The last `kKlWindow` values, oldest first.
  std::optional<double> reward_;  ///< Of the step before.
  std::optional<double> chosen_;  ///< rewards/chosen of the first step: 0 against a reference.
};

}  // namespace temper
