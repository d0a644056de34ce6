#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "temper/nn/models.h"
#include "temper/rollout/engine.h"
#include "temper/trainer/labeler.h"
#include "temper/trainer/pair_source.h"

namespace temper {

/// How answers are sampled and become pairs.
struct PairSamplingConfig {
  int64_t prompts_per_round = 8;
  int64_t completions = 2;
  std::string pairing = "best_worst";
  double min_margin = 0;
  double mixture_coef = 0.5;

  template <class V>
  void visit(V&& v) {
    v(prompts_per_round, "prompts_per_round",
      "Prompts of one round, sampled by the policy as it is then.");
    v(completions, "completions",
      "Answers to each prompt, at least 2; in xpo and nash_md, where half are the opponent's, an "
      "even number.");
    v(pairing, "pairing",
      "Which of them make pairs: the best against the worst, one pair a prompt; or in_turn, the "
      "first against the second, the third against the fourth, and so on.",
      {"best_worst", "in_turn"});
    v(min_margin, "min_margin",
      "Pairs whose marks differ by less are left out, at least 0; ties always are.");
    v(mixture_coef, "mixture_coef",
      "Nash-MD: the reference's share of the mixture that the policy is judged against, in [0, 1].");
  }
  /// @throws Error naming the key of a value out of its range.
  void validate() const;
};

/// Whom the policy's answers meet.
enum class Opponent {
  kPolicy,     ///< Each other: pairs, the preferred first.
  kReference,  ///< The reference's (XPO): pairs, the label is 1 where the policy's is preferred.
  kMixture,    ///< A mixture's (Nash-MD): single answers, the label is P(preferred).
};

/// Pairs of answers that the policy samples as it is at the round's beginning. Answers stay the
/// tokens that were drawn. Left out and counted: prompts whose answers tie, have fewer than two
/// marks, differ by less than `min_margin`, or are the same tokens.
///
/// Metrics, with TRL's names where it has one: `objective/scores` (mean mark of the policy's
/// answers), `objective/scores_margin`, `objective/{model,ref}_scores` where there is an opponent,
/// `val/contain_eos_token` (or `val/{model,ref}_contain_eos_token`), `completions/mean_length`,
/// `completions/clipped_ratio`, `frac_reward_zero_std` (share of ties), `frac_reward_nan`,
/// `pairs/{made,tied,unlabelled,close,equal}` (counts), `pairs/length_gap` (tokens of the preferred
/// less those of the other), `time/rollout`, `time/label`, `rollout/tokens_per_second`.
class SampledPairs final : public PairSource {
 public:
  struct Parts {
    PairSamplingConfig config;
    RolloutConfig rollout;
    Dataset prompts;
    Labeler labeler;
    Opponent opponent = Opponent::kPolicy;
    std::optional<ReferenceModel> reference;  ///< Samples, or is mixed in, where it is an opponent.
    uint64_t seed = 42;
  };
  /// @param policy  must outlive the source.
  /// @throws Error for a setting out of range, or an opponent without a reference.
  SampledPairs(PolicyModel& policy, Parts parts);

  /// @throws Error as the labeler does, or of the rollout.
  [[nodiscard]] PairRows next(const RoundStart& at) override;
  [[nodiscard]] nlohmann::ordered_json state() const override;
  void restore(const nlohmann::ordered_json& state) override;
  [[nodiscard]] double epoch() const override;

 private:
  struct Batch;
  struct Tally;
  [[nodiscard]] size_t unit() const;
  [[nodiscard]] Batch sample(const RoundStart& at);
  [[nodiscard]] std::vector<Sample> opponents(const RolloutRequest& request) const;
  void label(Batch& batch) const;
  void pair(const Batch& batch, size_t unit, Tally& tally, PairRows& out) const;
  void take_pair(const Batch& batch, size_t first, std::span<const double> marks, Tally& tally,
                 PairRows& out) const;
  void describe(const Batch& batch, const Tally& tally, PairRows& out) const;

  PolicyModel& policy_;
  Parts parts_;
  PromptSampler sampler_;
  int64_t given_ = 0;
};

}  // namespace temper
