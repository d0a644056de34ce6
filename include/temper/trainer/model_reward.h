#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "temper/nn/models.h"
#include "temper/nn/scalar_model.h"
#include "temper/reward/reward.h"

namespace temper {

/// Whether every id stands for the same token in both.
[[nodiscard]] bool same_tokens(const Tokenizer& a, const Tokenizer& b);

/// Completions scored by a reward model, which may serve other rewards and the trainer too as long
/// as one thread calls at a time. A completion's score depends on its own text and the model alone.
///
/// Where the model's tokenizer is the policy's, it reads the prompt's ids and the very ids that
/// were sampled, the end token included. Else the text is written anew: for a model with a chat
/// template from the example's messages and the completion; otherwise prompt and completion are
/// tokenized in one piece, and the end token is appended. What the template writes behind an
/// answer's end token is added in either case, and the end token itself where a stop text ended the
/// completion, as in the texts that the model was trained on; a completion that was cut off gets
/// neither. Neighbours with the same prompt share its rows.
/// @param policy  the text side of the model that samples; copied from, not kept.
/// @param max_tokens  of one forward: memory and speed, no bit.
/// @throws Error when `model` is null or has no tokenizer. The function throws for an empty text
/// and for one that is longer than the model's context: `score` then leaves out that row alone.
[[nodiscard]] RewardFn reward_model_fn(std::shared_ptr<RewardModel> model, const ModelText& policy,
                                       int64_t max_tokens = RewardModel::kScoreTokens);

/// How the scores of several models become one. The last two distrust what the models disagree on
/// (Coste et al. 2023, "Reward model ensembles help mitigate overoptimization", whose UWO is
/// kMeanMinusVariance); spreads are those of the members, divided by their number.
enum class EnsembleRule { kMean, kMin, kMeanMinusStd, kMeanMinusVariance };

struct EnsembleOptions {
  EnsembleRule rule = EnsembleRule::kMean;
  double weight = 1.0;  ///< k of mean - k std and of mean - k variance; at least 0.
};

/// The rule over the scores of one completion. NaN if any score is; computed in double.
/// @throws Error for no scores.
[[nodiscard]] float combine_scores(std::span<const float> scores, const EnsembleOptions& options);

/// One reward from several. @throws Error for no member or a negative weight; the function throws
/// when a member returns another number of scores than it was given completions.
[[nodiscard]] RewardFn ensemble_reward(std::vector<RewardFn> members, EnsembleOptions options = {});
/// `ensemble_reward` over `reward_model_fn` of each; a backbone that all of them share runs once.
[[nodiscard]] RewardFn ensemble_reward(const std::vector<std::shared_ptr<RewardModel>>& models,
                                       const ModelText& policy, EnsembleOptions options = {});

}  // namespace temper
