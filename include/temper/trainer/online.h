#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "temper/data/tasks.h"
#include "temper/nn/models.h"
#include "temper/nn/scoring.h"
#include "temper/objective/advantage.h"
#include "temper/objective/kl_controller.h"
#include "temper/objective/objective.h"
#include "temper/objective/running_scale.h"
#include "temper/reward/reward.h"
#include "temper/rollout/engine.h"
#include "temper/trainer/critic.h"
#include "temper/trainer/observer.h"
#include "temper/trainer/optimizer.h"
#include "temper/trainer/schedule.h"

namespace temper {

/// How an online trainer turns rollouts into updates.
struct OnlineConfig {
  int64_t group_size = 8;
  int64_t prompts_per_step = 8;
  int64_t iterations = 1;
  int64_t minibatches = 1;
  int64_t micro_batch_tokens = 2048;
  bool gradient_checkpointing = false;
  bool mask_truncated = false;
  double top_entropy_quantile = 1.0;
  int64_t ref_sync_every = 0;
  double ref_sync_mix = 0.6;
  bool skip_dead_groups = true;
  bool check_exact = true;
  std::string minibatch_order = "as_sampled";

  template <class V>
  void visit(V&& v) {
    v(group_size, "group_size", "Completions sampled for each prompt; at least 2 where rewards are compared within a group.");
    v(prompts_per_step, "prompts_per_step", "Prompts of one rollout.");
    v(iterations, "iterations", "Passes over each rollout (mu); above 1 is off-policy.");
    v(minibatches, "minibatches", "Optimizer steps a pass: the rollout's prompts are cut into as many parts.");
    v(micro_batch_tokens, "micro_batch_tokens", "Most tokens of one forward and backward; the result does not depend on it while every group fits, and only by rounding where one is cut.");
    v(gradient_checkpointing, "gradient_checkpointing", "Keep only each layer's input and compute the rest again: less memory, a third more work, same bits.");
    v(mask_truncated, "mask_truncated", "Leave completions cut by the length limit out of the loss.");
    v(top_entropy_quantile, "top_entropy_quantile", "Train only on this share of tokens, those with the highest entropy, in (0, 1].");
    v(ref_sync_every, "ref_sync_every", "Optimizer steps between moves of the reference towards the policy; 0: never.");
    v(ref_sync_mix, "ref_sync_mix", "Share of the policy in such a move, in (0, 1].");
    v(skip_dead_groups, "skip_dead_groups", "Do not compute groups whose gradient is exactly 0.");
    v(check_exact, "check_exact", "Compare each first update's log-probs with the sampler's, bit for bit.");
    v(minibatch_order, "minibatch_order", "as_sampled: equal numbers of prompts in their order; shuffled: a fresh order for every pass, cut into equal numbers; by_tokens: shuffled, cut into about equal numbers of tokens.", {"as_sampled", "shuffled", "by_tokens"});
  }
  /// @param section  of the config, for the errors' sake.
  void validate(std::string_view section = "grpo") const;
};

/// The KL penalty in the reward, and what steers the strength of every KL of the run.
struct KlConfig {
  double reward_coef = 0;
  KlControllerConfig controller;

  template <class V>
  void visit(V&& v) {
    v(reward_coef, "reward_coef", "Weight of KL(policy || reference) of each token in its reward (nats); 0: none.");
    controller.visit(v);
  }
};

/// An online algorithm as a value: what is minimised and how rewards become advantages.
struct OnlineAlgorithm {
  std::string name;
  RolloutObjective objective;
  AdvantageEstimator advantages;
  bool needs_reference = false;  ///< The objective or the advantages read `ref_logprobs`.
  bool trains_on_zero = false;   ///< It has a gradient where advantages are 0 (KL, entropy bonus).
  bool needs_greedy = false;     ///< Advantages are relative to the score of a greedy completion.
  bool compares_group = true;    ///< A completion's advantage needs others of its prompt.
  double loss_kl_coef = 0;       ///< The objective's weight of the KL, before a controller's factor.
  KlConfig kl;
  /// An update ends when the mean KL(old || new) of an optimizer step's tokens, nats, passes 1.5
  /// times this; 0: never.
  double target_kl = 0;
  bool scale_rewards = false;  ///< Divide rewards by their running deviation.

  /// What a controller begins with.
  [[nodiscard]] double initial_kl_coef() const {
    return kl.reward_coef != 0 ? kl.reward_coef : loss_kl_coef;
  }
};

/// One rollout on its way through a step.
struct Rollout {
  int64_t step = 0;                       ///< Index of the step, from 0.
  std::vector<size_t> rows;               ///< Dataset rows of the prompts.
  std::vector<std::string> prompt_texts;  ///< As the model saw them.
  RolloutRequest request;
  std::vector<Sample> samples;  ///< [prompts * group size]
  RolloutStats stats;
  RewardScores scores;
  std::vector<double> greedy_rewards;   ///< [prompts] of a greedy completion; empty: not asked for.
  std::vector<int64_t> offsets;         ///< [samples + 1] tokens of sample i are [offsets[i], offsets[i + 1]).
  std::vector<float> ref_logprobs;      ///< [tokens] of the reference, nats; empty: not measured up front.
  std::vector<float> values;            ///< [tokens] of the state before each token; empty: no critic.
  std::vector<float> bootstrap_values;  ///< [samples] of the state behind the last token, or empty.
  Advantages advantages;
  Metrics metrics;  ///< Filled by each part of the step.

  /// Whether the length limit cut a completion.
  [[nodiscard]] bool truncated(size_t sample) const { return samples[sample].finish == Finish::kLength; }
};

/// Samples, scores and updates: the parts of GRPO and its kin, each callable by itself. `step` calls
/// them in order; a program may do so instead (examples/own_the_loop.cpp) and gets the same bits.
/// The policy is sampled and trained through one forward, so the ratio of a rollout's first update is
/// exactly 1. Everything random is keyed by (seed, step), so a trainer restored from a checkpoint goes
/// on with the bits of one that never stopped.
class OnlineTrainer {
 public:
  struct Parts {
    OnlineAlgorithm algorithm;
    OnlineConfig config;
    RolloutConfig rollout;
    OptimizerConfig optimizer;
    ScheduleConfig schedule;
    std::vector<NamedReward> rewards;
    Dataset prompts;
    int64_t total_steps = 1;
    uint64_t seed = 42;
    std::shared_ptr<Critic> critic;  ///< The value model, for algorithms that use one.
    std::optional<WeightDType> reference_weights;  ///< Of the frozen reference; none: the policy's.
    std::optional<ReferenceModel> reference;  ///< None: a copy of the policy as the trainer is made.
  };
  /// @param policy  trainable; must outlive the trainer.
  OnlineTrainer(PolicyModel& policy, Parts parts);

  /// The rows of the next rollout, and the completions of the policy to them.
  [[nodiscard]] Rollout rollout();
  /// Calls the reward functions. @throws Error if no completion got a score.
  void score(Rollout& r);
  /// Rewards to advantages, after the reference and the critic have seen the rollout if the algorithm
  /// asks them beforehand.
  void estimate_advantages(Rollout& r);
  /// All optimizer steps on the rollout; advances the step count. An error leaves weights and moments
  /// as the last whole optimizer step made them. One exception: a critic of its own is checked and
  /// stepped before the policy's gradient is computed, in the same memory, so where that one is not
  /// finite the critic is a step ahead. Then this trainer makes no further step
  /// and no `save`: begin anew from a checkpoint.
  void update(Rollout& r);

  /// One whole step; its metrics have TRL's names. Where a reward does not return in time
  /// (RewardTimeout, naming the step), the trainer is as before: the step can be made again, or saved.
  [[nodiscard]] Rollout step();

  [[nodiscard]] int64_t steps_done() const { return state_.step; }
  [[nodiscard]] int64_t total_steps() const { return parts_.total_steps; }
  [[nodiscard]] double epoch() const;
  [[nodiscard]] const Parts& parts() const { return parts_; }
  [[nodiscard]] PolicyModel& policy() const { return policy_; }

  /// A few of the rollout's completions, for observers.
  [[nodiscard]] std::vector<SampleCompletion> describe(const Rollout& r, size_t count) const;

  /// Writes all state into a checkpoint folder: model/ (a Hugging Face folder) or, for an adapter,
  /// adapter/ (a PEFT folder); optimizer, counters.
  void save(const std::filesystem::path& folder) const;
  /// Restores the state of `save`; the policy's weights were loaded from its model/ already.
  /// A reference that never moves is not in the checkpoint: give it by `set_reference` first.
  /// @throws Error if it was not given, or if prompts, seed or model are not those of the checkpoint.
  void load(const std::filesystem::path& folder);
  /// The model to measure KL against. By default a copy of the policy as the trainer was made, or the
  /// policy without its adapter.
  void set_reference(ReferenceModel reference);
  [[nodiscard]] bool has_reference() const { return reference_.has_value(); }
  /// Bytes that `save` writes, about.
  [[nodiscard]] uint64_t checkpoint_bytes() const;

 private:
  struct State {
    int64_t step = 0;
    double num_tokens = 0;
    RunningScale reward_scale;
  };
  /// Completions of one prompt that go through one forward together.
  struct Part {
    size_t prompt;
    std::vector<size_t> samples;
  };
  using MicroBatch = std::vector<Part>;
  using Prompts = std::span<const size_t>;
  struct StepSums;
  struct Evaluation;
  [[nodiscard]] std::vector<MicroBatch> micro_batches(const Rollout& r, Prompts prompts, bool all) const;
  [[nodiscard]] bool trained_on(const Rollout& r, size_t sample) const;
  [[nodiscard]] std::vector<std::vector<size_t>> minibatches(const Rollout& r, int64_t pass) const;
  [[nodiscard]] StepTotals totals(const Rollout& r, Prompts prompts) const;
  [[nodiscard]] bool measures_reference() const;
  [[nodiscard]] WeightDType reference_dtype() const;
  [[nodiscard]] RewardScores score_in_time(const Rollout& r, std::span<const Sample> samples) const;
  void measure(Rollout& r);
  void greedy(Rollout& r);
  [[nodiscard]] RewardTable reward_table(const Rollout& r) const;
  [[nodiscard]] TokenTable token_table(const Rollout& r, const RewardTable& rewards);
  [[nodiscard]] CompletionBatch pack(const Rollout& r, const MicroBatch& batch, Tail tail) const;
  [[nodiscard]] std::vector<Completion> completions_of(const Rollout& r, std::span<const Sample> samples) const;
  [[nodiscard]] std::vector<float> gather(const Rollout& r, const MicroBatch& batch, const std::vector<float>& flat) const;
  void scatter(const Rollout& r, const MicroBatch& batch, std::span<const float> values, std::vector<float>& flat) const;
  void optimizer_step(const Rollout& r, Prompts prompts, bool first, StepSums& sums);
  void step_critic(const Rollout& r, const std::vector<MicroBatch>& batches, const StepTotals& totals,
                   StepSums& sums);
  void step_policy(const Rollout& r, const std::vector<MicroBatch>& batches, const StepTotals& totals,
                   bool first, StepSums& sums);
  void give_up(bool critic_ahead);
  void check_whole() const;
  void check_inputs(const Rollout& r) const;
  void run_micro_batch(const Rollout& r, const MicroBatch& batch, const StepTotals& totals, bool first,
                       StepSums& sums);
  void train_critic(const Rollout& r, const MicroBatch& batch, const StepTotals& totals, StepSums& sums);
  [[nodiscard]] ValueBatch value_batch(const Rollout& r, const MicroBatch& batch, const StepTotals& totals) const;
  void update_metrics(Rollout& r, const StepSums& sums, int64_t planned) const;
  void steer_kl(Rollout& r);
  void check_finite(const Rollout& r, const MicroBatch& batch, const TokenScores& scores) const;
  [[nodiscard]] RolloutBatch make_batch(const Rollout& r, const MicroBatch& batch,
                                        const std::vector<int32_t>& sequence) const;
  [[nodiscard]] TokenScores recorded_scores(const Rollout& r, const MicroBatch& batch,
                                            const at::Tensor& logprobs) const;
  [[nodiscard]] Evaluation evaluate(const Rollout& r, const MicroBatch& batch, RolloutBatch b,
                                    const TokenScores& scores) const;
  void rollout_metrics(Rollout& r) const;
  void kl_metrics(Rollout& r) const;
  void token_metrics(Rollout& r) const;

  PolicyModel& policy_;
  Parts parts_;
  std::optional<ReferenceModel> reference_;
  bool reference_given_ = false;
  RolloutEngine engine_;
  Optimizer optimizer_;
  PromptSampler sampler_;
  ScoringTape tape_;
  KlController kl_;
  State state_;
  bool torn_ = false;  ///< The critic made a step that the policy could not; for good.
};

}  // namespace temper
