#include "run_labeler.h"

#include <cmath>

#include "temper/core/error.h"
#include "temper/trainer/judge_reward.h"

namespace temper {

Labeler make_run_labeler(const LabelerSources& sources) {
  const LabelerConfig& c = sources.config;
  TEMPER_CHECK(std::isfinite(c.missing_eos_penalty) && c.missing_eos_penalty >= 0,
               "labeler.missing_eos_penalty must be at least 0, got ", c.missing_eos_penalty);
  if (c.kind == "judge") {
    TEMPER_CHECK(sources.judge != nullptr,
                 "labeler.kind=judge needs a judge: set judge.model to policy, or name a model");
    return penalize_cut_answers(judge_labeler(sources.judge), c.missing_eos_penalty);
  }
  TEMPER_CHECK(!sources.rewards.empty(),
               "labeler.kind=reward needs a reward: name one in reward.functions, or a model in "
               "reward_model.models");
  Labeler labeler = reward_labeler(sources.rewards);
  if (c.link == "sigmoid") labeler.link = bradley_terry;
  return penalize_cut_answers(std::move(labeler), c.missing_eos_penalty);
}

}  // namespace temper
