#include "run_rewards.h"

#include <ATen/ops/equal.h>

#include <algorithm>
#include <array>
#include <utility>

#include "temper/core/error.h"
#include "temper/reward/timeout.h"
#include "temper/trainer/judge_reward.h"
#include "temper/trainer/model_reward.h"

namespace temper {
namespace {

constexpr std::array kRules{std::pair{"mean", EnsembleRule::kMean}, std::pair{"min", EnsembleRule::kMin},
                            std::pair{"mean_minus_std", EnsembleRule::kMeanMinusStd},
                            std::pair{"mean_minus_variance", EnsembleRule::kMeanMinusVariance}};

bool same(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() == b.defined() && (!a.defined() || at::equal(a, b));
}

/// The first weight of a backbone that is not the reference's; null: all are.
const Parameter* different_weight(const CausalLM& backbone, const CausalLM& reference) {
  for (const auto& p : backbone.parameters()) {
    const auto params = reference.parameters();
    const auto other = std::find_if(params.begin(), params.end(),
                                    [&](const auto& q) { return q->name == p->name; });
    if (other == params.end() || !same(p->value, (*other)->value) || !same(p->half, (*other)->half) ||
        !same(p->int8, (*other)->int8) || !same(p->scales, (*other)->scales)) {
      return p.get();
    }
  }
  return nullptr;
}

/// The model's head over the reference, once its own backbone was seen to be the same.
RewardModel over_reference(const std::string& path, const ReferenceModel& reference) {
  const RewardModel own = RewardModel::load(path, reference.lm().dtype(), Trainable::kNo);
  const Parameter* other = different_weight(own.backbone(), reference.lm());
  TEMPER_CHECK(other == nullptr, "reward_model.share_reference: ", path, " has another ",
               other == nullptr ? "" : other->name, " than the reference. Train it from the run's "
               "model with reward.freeze_backbone, or leave share_reference off");
  ScalarHead head(own.head().width(), own.head().has_bias());
  head.set(own.head().weight(), own.head().bias());
  return {reference.shared_lm(), std::move(head), own.shared_source()};
}

}  // namespace

ModelRewards load_model_rewards(const ModelRewardConfig& config, const ReferenceModel* reference) {
  TEMPER_CHECK(!config.share_reference || reference != nullptr,
               "reward_model.share_reference needs a reference");
  ModelRewards out;
  for (const std::string& path : config.models) {
    out.models.push_back(std::make_shared<RewardModel>(
        config.share_reference
            ? over_reference(path, *reference)
            : RewardModel::load(path, parse_weight_dtype(config.weights), Trainable::kNo)));
  }
  return out;
}

namespace {

/// Rewards of rules: the task's own where the config names neither rules nor models.
RewardConfig rules_of(const RewardSources& s) {
  RewardConfig rules = s.config.reward;
  if (rules.functions.empty() && s.models.models.empty() && s.config.judge.model.empty()) {
    rules.functions = s.task.default_rewards;
  }
  return rules;
}

}  // namespace

bool has_rewards(const RewardSources& s) {
  return !s.extra.empty() || !rules_of(s).functions.empty() || !s.models.models.empty() ||
         !s.config.judge.model.empty();
}

std::vector<NamedReward> run_rewards(const RewardSources& s) {
  TEMPER_CHECK(has_rewards(s), "reward.functions is empty and task ", s.config.task.name,
               " has no reward of its own: name one (--keys lists them), or a model in "
               "reward_model.models or judge.model");
  const RewardConfig rules = rules_of(s);
  std::vector<NamedReward> out = s.extra;
  if (!rules.functions.empty()) {
    const auto named = make_rewards(rules, s.config.rollout.max_new_tokens);
    out.insert(out.end(), named.begin(), named.end());
  }
  out = in_time(std::move(out), s.config.reward.timeout_seconds);
  if (!s.models.models.empty()) {
    out.push_back({"reward_model", model_reward(s.models, s.config.reward_model, s.policy),
                   s.config.reward_model.weight});
  }
  if (!s.config.judge.model.empty()) {
    out.push_back({"judge", judge_reward(make_judge(s.config.judge, s.policy)), s.config.judge.weight});
  }
  return out;
}

std::vector<NamedReward> in_time(std::vector<NamedReward> rewards, double seconds) {
  TEMPER_CHECK(seconds >= 0, "reward.timeout_seconds must be at least 0, got ", seconds);
  if (seconds == 0) return rewards;
  for (NamedReward& r : rewards) r = with_timeout(std::move(r), seconds);
  return rewards;
}

RewardFn model_reward(const ModelRewards& rewards, const ModelRewardConfig& config,
                      const PolicyModel& policy) {
  for (const auto& [name, rule] : kRules) {
    if (config.rule != name) continue;
    return ensemble_reward(rewards.models, policy.text(), {rule, config.uncertainty});
  }
  fail("reward_model.rule is \"", config.rule, "\", which is no rule; see --keys");
}

}  // namespace temper
