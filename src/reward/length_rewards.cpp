#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "temper/core/error.h"
#include "temper/reward/builtin.h"
#include "temper/reward/combinators.h"

namespace temper {
namespace {

int64_t tokens(const Completion& c) { return static_cast<int64_t>(c.ids.size()); }

/// How many of the n-grams differ: their starts, sorted by content, counted where content changes.
size_t different_ngrams(std::span<const int32_t> ids, size_t n) {
  std::vector<size_t> starts(ids.size() - n + 1);
  for (size_t i = 0; i < starts.size(); ++i) starts[i] = i;
  const auto gram = [&](size_t start) { return ids.subspan(start, n); };
  std::sort(starts.begin(), starts.end(), [&](size_t a, size_t b) {
    return std::ranges::lexicographical_compare(gram(a), gram(b));
  });
  size_t different = 1;
  for (size_t i = 1; i < starts.size(); ++i) {
    different += !std::ranges::equal(gram(starts[i - 1]), gram(starts[i]));
  }
  return different;
}

}  // namespace

RewardFn length_penalty(int64_t max_tokens) {
  TEMPER_CHECK(max_tokens >= 1, "[length_penalty] max_tokens must be at least 1, got ", max_tokens);
  return per_completion([max = static_cast<double>(max_tokens)](const Completion& c) {
    return static_cast<float>(-std::min(static_cast<double>(tokens(c)) / max, 1.0));
  });
}

RewardFn length_target(int64_t target, int64_t width) {
  TEMPER_CHECK(target >= 1 && width >= 1,
               "[length_target] target and width must be at least 1, got ", target, " and ", width);
  return per_completion([target, width](const Completion& c) {
    const double off = std::abs(static_cast<double>(tokens(c)) - static_cast<double>(target));
    return static_cast<float>(std::max(0.0, 1.0 - off / static_cast<double>(width)));
  });
}

RewardFn soft_overlong(int64_t max_tokens, int64_t cache) {
  TEMPER_CHECK(max_tokens >= 1, "[soft_overlong] max_tokens must be at least 1, got ", max_tokens);
  TEMPER_CHECK(cache >= 0 && cache <= max_tokens,
               "[soft_overlong] cache must be in [0, max_tokens = ", max_tokens, "], got ", cache);
  return per_completion([max_tokens, cache](const Completion& c) {
    const int64_t free = max_tokens - cache;
    if (tokens(c) <= free) return 0.0f;
    if (tokens(c) > max_tokens) return -1.0f;
    return static_cast<float>(static_cast<double>(free - tokens(c)) / static_cast<double>(cache));
  });
}

RewardFn repetition(int64_t ngram, double max_penalty) {
  TEMPER_CHECK(ngram >= 1, "[repetition] ngram must be at least 1, got ", ngram);
  TEMPER_CHECK(max_penalty <= 0, "[repetition] max_penalty must not be above 0, got ", max_penalty);
  return per_completion([n = static_cast<size_t>(ngram), max_penalty](const Completion& c) {
    if (c.ids.size() < n) return 0.0f;
    const double different = static_cast<double>(different_ngrams(c.ids, n));
    const double all = static_cast<double>(c.ids.size() - n + 1);
    return static_cast<float>(max_penalty * (1.0 - different / all));
  });
}

RewardFn cosine_scaled(RewardFn correct, int64_t max_tokens, CosineBounds bounds) {
  TEMPER_CHECK(correct, "[cosine_scaled] the inner reward has no function");
  TEMPER_CHECK(max_tokens >= 1, "[cosine_scaled] max_tokens must be at least 1, got ", max_tokens);
  return [correct = std::move(correct), max = static_cast<double>(max_tokens),
          bounds](std::span<const Completion> completions) {
    std::vector<float> scores = detail::call_checked(correct, completions, "cosine_scaled");
    for (size_t i = 0; i < scores.size(); ++i) {
      if (std::isnan(scores[i])) continue;
      const bool right = scores[i] > 0.5f;
      const double at_long = right ? bounds.correct_long : bounds.wrong_long;
      const double at_short = right ? bounds.correct_short : bounds.wrong_short;
      const double progress = std::min(static_cast<double>(tokens(completions[i])) / max, 1.0);
      const double wave = 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
      scores[i] = static_cast<float>(at_long + (at_short - at_long) * wave);
    }
    return scores;
  };
}

}  // namespace temper
