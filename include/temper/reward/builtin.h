#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "temper/reward/reward.h"

/// Rewards that come with Temper. Each states its range and formula; n is the number of completion
/// tokens. A row whose reference answer is missing or unusable scores NaN (not scored). All are
/// deterministic and safe to call from several threads.
namespace temper {

/// How two texts are compared.
struct TextMatch {
  bool ignore_case = false;         ///< Unicode case folding.
  bool ignore_space = true;         ///< Blanks at the ends go, runs of blanks become one.
  bool ignore_punctuation = false;  ///< ASCII punctuation goes.
};

/// The text as `TextMatch` compares it. Invalid UTF-8 keeps its case.
[[nodiscard]] std::string normalise_text(const std::string& text, const TextMatch& match);

/// {0, 1}: 1 if the completion equals the row's answer.
[[nodiscard]] RewardFn exact_match(TextMatch match = {});

/// {0, 1}: 1 if `answer_number` of the completion equals that of the row's answer: exactly when
/// `tolerance` is 0, else within tolerance * max(1, |answer|).
[[nodiscard]] RewardFn numeric_answer(double tolerance = 0);

/// {0, 1}: 1 if the completion equals one of `words`, or contains one of them.
[[nodiscard]] RewardFn one_of(std::vector<std::string> words, TextMatch match = {});
[[nodiscard]] RewardFn contains(std::vector<std::string> words, TextMatch match = {});

/// {0, 1}: 1 if the pattern matches somewhere; anchor it (\A ... \z) for the whole text, and start
/// it with (?s) where a point must match line ends. @throws Error here for a wrong pattern, and on
/// a row whose match exceeds the limits of `Regex`.
[[nodiscard]] RewardFn regex_format(const std::string& pattern);

/// {0, 1}: 1 if the text starts with <think>, holds no second one, and closes it: TRL's
/// `think_format_reward`.
[[nodiscard]] RewardFn think_format();

/// [0, 1]: the share of `tags` that occur exactly once.
[[nodiscard]] RewardFn tag_count(std::vector<std::string> tags = {"<think>", "</think>"});

/// [-1, 0]: -min(n / max_tokens, 1).
[[nodiscard]] RewardFn length_penalty(int64_t max_tokens);

/// [0, 1]: max(0, 1 - |n - target| / width).
[[nodiscard]] RewardFn length_target(int64_t target, int64_t width);

/// [-1, 0]: 0 while n <= L - C, then (L - C - n) / C while n <= L, -1 beyond, with L = max_tokens
/// and C = cache (DAPO, arXiv 2503.14476, eq. 13).
[[nodiscard]] RewardFn soft_overlong(int64_t max_tokens, int64_t cache);

/// [max_penalty, 0]: max_penalty * (1 - different / all n-grams of tokens); 0 for fewer than
/// `ngram` tokens (arXiv 2502.03373, appendix C.2).
[[nodiscard]] RewardFn repetition(int64_t ngram = 3, double max_penalty = -1.0);

/// Ends of the cosine schedule: at n = 0 (short) and at n >= max_tokens (long).
struct CosineBounds {
  double wrong_short = -1.0;
  double wrong_long = -0.5;
  double correct_long = 0.5;
  double correct_short = 1.0;
};

/// long + (short - long) * (1 + cos(pi * min(n / max_tokens, 1))) / 2, with the bounds of a correct
/// completion where `correct` scores above 0.5, else of a wrong one (arXiv 2502.03373, appendix
/// C.1).
[[nodiscard]] RewardFn cosine_scaled(RewardFn correct, int64_t max_tokens,
                                     CosineBounds bounds = {});

/// The rewards of a run and their settings.
struct RewardConfig {
  std::vector<std::string> functions;
  std::vector<double> weights;
  double tolerance = 0;
  bool ignore_case = true;
  bool ignore_punctuation = true;
  std::vector<std::string> words;
  std::string pattern;
  std::vector<std::string> tags = {"<think>", "</think>"};
  int64_t max_tokens = 0;
  int64_t overlong_cache = 0;
  int64_t target_tokens = 0;
  int64_t target_width = 0;
  int64_t ngram = 3;
  double max_penalty = -1.0;
  std::string cosine_correct = "numeric_answer";

  template <class V>
  void visit(V&& v) {
    v(functions, "functions", "Rewards by name, in order; empty: what fits the task.");
    v(weights, "weights", "One weight a reward; empty: 1 each.");
    v(tolerance, "tolerance", "numeric_answer: relative tolerance, at least 0; 0: exact.");
    v(ignore_case, "ignore_case", "exact_match, one_of, contains: upper case equals lower case.");
    v(ignore_punctuation, "ignore_punctuation", "exact_match, one_of, contains: leave it out.");
    v(words, "words", "one_of, contains: the accepted texts.");
    v(pattern, "pattern", "regex_format: Perl-style pattern, searched for.");
    v(tags, "tags", "tag_count: tags that must occur once each.");
    v(max_tokens, "max_tokens",
      "length_penalty, soft_overlong, cosine_scaled: token limit; 0: the run's "
      "completion limit.");
    v(overlong_cache, "overlong_cache",
      "soft_overlong: tokens before the limit over which the "
      "penalty grows; 0: an eighth of the limit.");
    v(target_tokens, "target_tokens", "length_target: wanted tokens, at least 1.");
    v(target_width, "target_width",
      "length_target: tokens off at which the reward is 0; 0: the "
      "target itself.");
    v(ngram, "ngram", "repetition: tokens of an n-gram, at least 1.");
    v(max_penalty, "max_penalty", "repetition: value for pure repetition, at most 0.");
    v(cosine_correct, "cosine_correct", "cosine_scaled: reward that tells right from wrong.");
  }
};

/// A reward that can be named in a config.
struct BuiltinReward {
  std::string name;
  std::string doc;  ///< One sentence with the range.
  RewardFn (*make)(const RewardConfig&);
};

/// All of them.
[[nodiscard]] const std::vector<BuiltinReward>& builtin_rewards();

/// The rewards that `config.functions` names, with weights. `max_completion_tokens` stands in for
/// `max_tokens` where that is 0.
/// @throws Error for an unknown name (naming the nearest), a wrong number of weights, a setting
/// that is out of range, or no functions.
[[nodiscard]] std::vector<NamedReward> make_rewards(RewardConfig config,
                                                    int64_t max_completion_tokens = 0);

}  // namespace temper
