#include "temper/reward/builtin.h"

#include <algorithm>
#include <utility>

#include "temper/core/error.h"

namespace temper {
namespace {

TextMatch match_of(const RewardConfig& c) { return {c.ignore_case, true, c.ignore_punctuation}; }

int64_t limit_of(const RewardConfig& c, const char* name) {
  TEMPER_CHECK(c.max_tokens >= 1, "[reward] ", name,
               " needs a token limit: set reward.max_tokens to at least 1, got ", c.max_tokens);
  return c.max_tokens;
}

RewardFn make_soft_overlong(const RewardConfig& c) {
  const int64_t limit = limit_of(c, "soft_overlong");
  return soft_overlong(limit, c.overlong_cache == 0 ? limit / 8 : c.overlong_cache);
}

RewardFn make_length_target(const RewardConfig& c) {
  return length_target(c.target_tokens, c.target_width == 0 ? c.target_tokens : c.target_width);
}

const BuiltinReward& find_builtin(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& builtin : builtin_rewards()) {
    if (builtin.name == name) return builtin;
    names.push_back(builtin.name);
  }
  const std::string near = nearest_name(name, names);
  std::string all;
  for (const auto& known : names) all += (all.empty() ? "" : ", ") + known;
  fail("[reward] unknown reward \"", name, "\"",
       near.empty() ? "" : "; did you mean \"" + near + "\"?", " Rewards: ", all);
}

RewardFn make_cosine(const RewardConfig& c) {
  TEMPER_CHECK(c.cosine_correct != "cosine_scaled",
               "[reward] reward.cosine_correct must be another reward than cosine_scaled");
  return cosine_scaled(find_builtin(c.cosine_correct).make(c), limit_of(c, "cosine_scaled"));
}

}  // namespace

const std::vector<BuiltinReward>& builtin_rewards() {
  static const std::vector<BuiltinReward> table = {
      {"numeric_answer",
       "1 if the answer's number is right (####, \\boxed{} or the last one), else 0.",
       [](const RewardConfig& c) { return numeric_answer(c.tolerance); }},
      {"exact_match", "1 if the completion equals the row's answer, else 0.",
       [](const RewardConfig& c) { return exact_match(match_of(c)); }},
      {"one_of", "1 if the completion equals one of reward.words, else 0.",
       [](const RewardConfig& c) { return one_of(c.words, match_of(c)); }},
      {"contains", "1 if the completion contains one of reward.words, else 0.",
       [](const RewardConfig& c) { return contains(c.words, match_of(c)); }},
      {"regex_format", "1 if reward.pattern matches somewhere, else 0.",
       [](const RewardConfig& c) { return regex_format(c.pattern); }},
      {"think_format", "1 if the text starts with one closed <think> block, else 0.",
       [](const RewardConfig&) { return think_format(); }},
      {"tag_count", "Share of reward.tags that occur exactly once, 0 to 1.",
       [](const RewardConfig& c) { return tag_count(c.tags); }},
      {"length_penalty", "Minus tokens over reward.max_tokens, -1 to 0.",
       [](const RewardConfig& c) { return length_penalty(limit_of(c, "length_penalty")); }},
      {"length_target", "1 at reward.target_tokens, falling to 0 at reward.target_width off it.",
       make_length_target},
      {"soft_overlong", "0, then falling to -1 over the last reward.overlong_cache tokens (DAPO).",
       make_soft_overlong},
      {"repetition", "reward.max_penalty times the share of repeated token n-grams, at most 0.",
       [](const RewardConfig& c) { return repetition(c.ngram, c.max_penalty); }},
      {"cosine_scaled", "Right: 1 (short) to 0.5 (long); wrong: -1 (short) to -0.5 (long).",
       make_cosine},
  };
  return table;
}

std::vector<NamedReward> make_rewards(RewardConfig config, int64_t max_completion_tokens) {
  TEMPER_CHECK(!config.functions.empty(), "[reward] reward.functions names no reward");
  TEMPER_CHECK(config.weights.empty() || config.weights.size() == config.functions.size(),
               "[reward] reward.weights must have one weight a reward (", config.functions.size(),
               ") or none, got ", config.weights.size());
  if (config.max_tokens == 0) config.max_tokens = max_completion_tokens;
  std::vector<NamedReward> rewards;
  for (size_t i = 0; i < config.functions.size(); ++i) {
    const std::string& name = config.functions[i];
    const double weight = config.weights.empty() ? 1.0 : config.weights[i];
    rewards.push_back({name, find_builtin(name).make(config), weight});
  }
  return rewards;
}

}  // namespace temper
