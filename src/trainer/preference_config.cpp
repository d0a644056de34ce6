// The commands that learn from the policy's own answers, their defaults and their words.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "config_source.h"
#include "temper/core/error.h"
#include "temper/trainer/preference_run.h"

namespace temper {
namespace {

/// TRL's for online methods.
void common_defaults(PreferenceRunConfig& c) {
  c.schedule.learning_rate = 5e-7;
  c.rollout.temperature = 0.9;
}

void online_dpo(PreferenceRunConfig& c) { common_defaults(c); }

void iterative_dpo(PreferenceRunConfig& c) {
  common_defaults(c);
  c.preference.sampling.prompts_per_round = 64;
  c.preference.sampling.completions = 8;
  c.preference.reference = "round";
  config_set(config_fields(c.loss), "loss_type=sigmoid,sft");
}

void self_rewarding(PreferenceRunConfig& c) {
  iterative_dpo(c);
  c.preference.sampling.completions = 4;
  c.labeler.kind = "judge";
  c.judge.model = "policy";
}

void nash_md(PreferenceRunConfig& c) {
  common_defaults(c);
  c.labeler.link = "sigmoid";
}

}  // namespace

const std::vector<PreferenceMethod>& preference_methods() {
  static const std::vector<PreferenceMethod> kMethods{
      {"online-dpo",
       "Online DPO: two answers of the present policy to each prompt, the better one preferred, one\n"
       "DPO step on them. Finds answers that no file of pairs has, at the price of sampling while\n"
       "training.",
       "dpo", online_dpo},
      {"iterative-dpo",
       "Iterative DPO in rounds: preference.completions answers to each of a round's prompts, the best\n"
       "against the worst, learned in several steps with their likelihood beside (loss_type\n"
       "sigmoid,sft). The reference is the policy as each round begins; it takes no second model.",
       "dpo", iterative_dpo},
      {"self-rewarding",
       "Self-rewarding: iterative DPO in which the policy marks its own answers by a rubric\n"
       "(judge.rubric; Yuan et al. 2024). Rewards of the task or of reward.functions are for held-out\n"
       "evaluations only: the gold score that tells learning from flattering oneself.",
       "dpo", self_rewarding},
      {"xpo",
       "XPO: an answer of the policy against one of the reference, and a bonus for what the reference\n"
       "would not say (loss.alpha): exploration on purpose.",
       "xpo", online_dpo},
      {"nash-md",
       "Nash-MD: answers of the policy against those of a mixture of policy and reference\n"
       "(preference.mixture_coef), for preferences that no single score can order. A policy gradient:\n"
       "take many answers a step. Sampling a mixture costs a forward of both models a token.",
       "nash_md", nash_md}};
  return kMethods;
}

PreferenceRunConfig read_preference_config(std::string_view method, const std::string& json_text,
                                           const std::string& source,
                                           const std::vector<std::string>& assignments) {
  const auto& all = preference_methods();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const PreferenceMethod& m) { return m.name == method; });
  TEMPER_CHECK(found != all.end(), "[preference] there is no method \"", method, "\"");
  PreferenceRunConfig config;
  config.loss.select(found->loss, online_preference_objectives());
  found->set_defaults(config);
  apply_settings(config, parse_config(json_text, source), source, assignments);
  if (!config.data_path.empty()) config.task.path = config.data_path;
  config.data_path.clear();
  return config;
}

std::string config_text(PreferenceRunConfig config) { return text_of(config); }

std::string describe_batch(const PreferenceRunConfig& c) {
  const PreferenceConfig& p = c.preference;
  const PairSamplingConfig& s = p.sampling;
  const std::string& loss = c.loss.name();
  const std::string who = loss == "xpo"       ? " answers, half of them the reference's,"
                          : loss == "nash_md" ? " answers, half of them a mixture's,"
                                              : " answers";
  return concat("Each round asks ", s.prompts_per_round, " prompts for ", s.completions, who,
                " of at most ", c.rollout.max_new_tokens, " new tokens, has them labelled, and learns ",
                p.passes, p.passes == 1 ? " pass" : " passes", " by ", loss, ", at most ",
                p.rows_per_step, " rows a step, in micro-batches of at most ", p.micro_batch_tokens,
                " tokens; ", c.trainer.steps, " optimizer steps in all.");
}

}  // namespace temper
