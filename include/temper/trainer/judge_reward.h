#pragma once

#include <memory>
#include <string>

#include "temper/reward/reward.h"
#include "temper/trainer/judge.h"
#include "temper/trainer/labeler.h"

namespace temper {

/// The judge that a config names: over the policy itself, as it is whenever it is asked, or over a
/// frozen model of its own. @param policy  outlives the judge where `model` is policy.
/// @throws Error where `model` is empty or cannot be read.
[[nodiscard]] std::shared_ptr<ModelJudge> make_judge(const JudgeConfig& config, const PolicyModel& policy);

/// A completion as a judge reads it: the example's prompt, its turns by their roles where there is
/// more than one, and its answer as the reference.
[[nodiscard]] JudgeTexts judge_texts(const Completion& completion);

/// The judge as a reward. Pointwise: the mark. Pairwise: the mean of P(better) over the other
/// completions of the same prompt, which stand beside it; a prompt's only completion gets NaN.
[[nodiscard]] RewardFn judge_reward(std::shared_ptr<ModelJudge> judge);

/// The judge as a labeler of the policy's own answers. Pairwise it compares. Pointwise it marks, and
/// P(the first is preferred) is that of a higher mark where both are drawn from their probabilities,
/// a tie counting half.
[[nodiscard]] Labeler judge_labeler(std::shared_ptr<ModelJudge> judge);

/// P(a mark drawn for the first is higher) + P(equal) / 2, each less its length penalty. NaN where
/// one has no value.
[[nodiscard]] double preference_by_shares(const Mark& first, const Mark& second, double length_penalty);

}  // namespace temper
