#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "card_scores.h"
#include "split.h"
#include "survey.h"
#include "temper/nn/models.h"

namespace restaurant {

/// Guests and places as the model reads them.
struct SurveyTokens {
  std::vector<std::vector<int32_t>> prompts;  ///< [guests]
  std::vector<std::vector<int32_t>> cards;    ///< [places], the model's end token behind each.
};
[[nodiscard]] SurveyTokens tokenize(const Survey& survey, const temper::ModelText& text);

/// How an adapter is trained.
struct TrainConfig {
  std::string method = "dpo";  ///< dpo or simpo.
  int64_t rank = 8;
  int64_t steps = 48;
  int64_t pairs_per_step = 8;
  double learning_rate = 3e-4;
  uint64_t seed = 1;
};

/// A policy that is an adapter on a frozen model, trained to put the better card above the worse.
/// Prints its progress.
[[nodiscard]] temper::PolicyModel train_adapter(const std::string& model,
                                                const SurveyTokens& tokens,
                                                const std::vector<Preference>& preferences,
                                                const TrainConfig& config);
/// The same from a folder in PEFT's format, to ask it.
[[nodiscard]] temper::PolicyModel load_adapter(const std::string& model, const std::string& folder);

/// What a place is ranked by. Lift: how much likelier the card is than under the model without its
/// adapter; times beta it is the reward that DPO trains, and it leaves out what makes a text likely
/// whoever asks (short names, common words).
enum class Rule { kSum, kMean, kLift, kMeanLift };
[[nodiscard]] const char* rule_name(Rule rule);

/// [trials][places] scores of all trials' cards.
using TrialScores = std::vector<std::vector<CardScore>>;
[[nodiscard]] TrialScores score_trials(temper::CausalLM& model, const SurveyTokens& tokens,
                                       const std::vector<Trial>& trials);

/// One number a card, higher is better.
[[nodiscard]] std::vector<double> ranked_by(Rule rule, const std::vector<CardScore>& policy,
                                            const std::vector<CardScore>& base);

}  // namespace restaurant
