// From a run's configuration to the input of its plan.
#include <algorithm>
#include <numeric>

#include "temper/core/error.h"
#include "temper/nn/scalar_model.h"
#include "temper/trainer/plan.h"
#include "temper/trainer/preference_run.h"
#include "temper/trainer/reward_run.h"
#include "temper/trainer/run_config.h"

namespace temper {
namespace {

PlanBatch plan_batch(const OnlineRunConfig& run, const OnlineConfig& online,
                     const PlanSources& sources) {
  PlanBatch b;
  b.prompts = online.prompts_per_step;
  b.group_size = online.group_size;
  if (const auto& tokens = sources.prompt_tokens; !tokens.empty()) {
    b.prompt_tokens = *std::max_element(tokens.begin(), tokens.end());
    const auto sum = std::accumulate(tokens.begin(), tokens.end(), int64_t{0});
    b.mean_prompt_tokens = std::max<int64_t>(1, sum / std::ssize(tokens));
  }
  b.mean_completion_tokens = run.rollout.max_new_tokens;
  b.iterations = online.iterations;
  b.minibatches = online.minibatches;
  b.micro_batch_tokens = online.micro_batch_tokens;
  b.gradient_checkpointing = online.gradient_checkpointing;
  if (run.eval.every >= 0) {
    b.held_out_prompts = run.eval.prompts > 0 ? std::min(sources.held_out, run.eval.prompts)
                                              : sources.held_out;
  }
  return b;
}

int64_t moment_bytes(const OptimizerConfig& optimizer) {
  return optimizer.moments == "bfloat16" ? 2 : 4;
}

/// Settings that make an algorithm need a reference, turned off.
std::string without_reference(const OnlineAlgorithm& a) {
  if (a.kl.reward_coef == 0) return "loss.kl_coef=0";
  return a.loss_kl_coef == 0 ? "kl.reward_coef=0"
                             : "kl.reward_coef=0 --set " + a.name + ".loss.kl_coef=0";
}

PlanInput online_input(const OnlineRunConfig& run, const OnlineConfig& online,
                       const OnlineAlgorithm& algorithm, const PlanSources& sources) {
  TEMPER_CHECK(!frozen_only(parse_weight_dtype(run.trainer.weights)) || run.adapter.used(),
               "[plan] trainer.weights=", run.trainer.weights, " is for models under an adapter");
  PlanInput in;
  in.adapter = planned_adapter(run.adapter);
  in.algorithm = algorithm.name;
  in.no_reference = without_reference(algorithm);
  in.policy = sources.policy;
  in.dtype = parse_weight_dtype(run.trainer.weights);
  if (algorithm.needs_reference) {
    in.reference = run.trainer.reference_file.empty() ? ReferencePlacement::kCopy
                                                      : ReferencePlacement::kMapped;
  }
  if (run.trainer.reference_weights != "same") {
    in.reference_dtype = parse_weight_dtype(run.trainer.reference_weights);
  }
  for (const ModelConfig& reward : sources.rewards) {
    in.rewards.push_back({.model = reward,
                          .dtype = parse_weight_dtype(run.reward_model.weights),
                          .shares_backbone = run.reward_model.share_reference,
                          .batch_tokens = RewardModel::kScoreTokens});
  }
  in.moment_bytes = moment_bytes(run.optimizer);
  in.rollout = run.rollout;
  in.batch = plan_batch(run, online, sources);
  in.saves = run.trainer.save_model || run.trainer.checkpoint_every > 0;
  return in;
}

}  // namespace

std::optional<AdapterConfig> planned_adapter(const AdapterRunConfig& config) {
  if (!config.used()) return std::nullopt;
  if (config.path.empty()) return config.settings();
  AdapterConfig adapter = open_peft_adapter(config.path).config;
  if (adapter.target_modules.empty()) adapter.target_modules = {"all-linear"};
  return adapter;
}

PlanInput plan_input(const GrpoRunConfig& config, const PlanSources& sources) {
  return online_input(config, config.grpo.online, grpo(config.grpo), sources);
}

PlanInput plan_input(const PpoRunConfig& config, const PlanSources& sources) {
  PlanInput in = online_input(config, config.ppo.online, ppo(config.ppo), sources);
  const bool own = config.ppo.value.model == "own";
  in.value = own ? ValuePlacement::kOwn : ValuePlacement::kSharedTrunk;
  in.value_model = sources.value           ? *sources.value
                   : sources.rewards.empty() ? sources.policy
                                             : sources.rewards.front();
  in.value_adapter = own && in.adapter && config.ppo.value.init.empty();
  if (in.value_adapter) in.value_model = sources.policy;
  return in;
}

PlanInput plan_input(const PreferenceRunConfig& config, const PlanSources& sources) {
  const PreferenceConfig& p = config.preference;
  OnlineConfig online;
  online.prompts_per_step = p.sampling.prompts_per_round;
  online.group_size = p.sampling.completions;
  online.iterations = p.passes;
  online.minibatches = (p.sampling.prompts_per_round + p.rows_per_step - 1) / p.rows_per_step;
  online.micro_batch_tokens = p.micro_batch_tokens;
  online.gradient_checkpointing = p.gradient_checkpointing;
  OnlineAlgorithm algorithm;
  algorithm.name = "preference";
  algorithm.needs_reference = config.loss.needs().reference && p.reference == "initial";
  PlanInput in = online_input(config, online, algorithm, sources);
  in.no_reference = "reference=round";
  return in;
}

PlanInput plan_input(const RewardRunConfig& config, const ModelConfig& model,
                     std::span<const int64_t> pair_rows) {
  TEMPER_CHECK(!pair_rows.empty(), "[plan] there is no pair to plan for");
  PlanInput in;
  in.algorithm = "reward";
  in.policy = model;
  in.adapter = planned_adapter(config.adapter);
  in.dtype = parse_weight_dtype(config.trainer.weights);
  in.moment_bytes = moment_bytes(config.optimizer);
  in.batch.micro_batch_tokens = config.reward.micro_batch_tokens;
  in.batch.gradient_checkpointing = config.reward.gradient_checkpointing;
  in.saves = config.trainer.save_model || config.trainer.checkpoint_every > 0;
  const auto sum = std::accumulate(pair_rows.begin(), pair_rows.end(), int64_t{0});
  in.pairs = PlanPairs{.pairs_per_step = config.reward.pairs_per_step,
                       .longest = *std::max_element(pair_rows.begin(), pair_rows.end()),
                       .mean = std::max<int64_t>(1, sum / std::ssize(pair_rows)),
                       .freeze_backbone = config.reward.freeze_backbone};
  return in;
}

}  // namespace temper
