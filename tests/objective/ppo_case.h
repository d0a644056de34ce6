#pragma once

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "error_of.h"
#include "temper/core/error.h"
#include "temper/core/rng.h"
#include "temper/objective/advantage.h"

namespace temper {

constexpr double kUnscored = std::numeric_limits<double>::quiet_NaN();

/// A rollout with its tokens; `table()` points into it.
struct TokenCase {
  TokenTable tokens;
  std::vector<double> scores;
  int64_t group_size = 1;

  [[nodiscard]] RewardTable table() const {
    return {.values = scores, .functions = 1, .group_size = group_size, .weights = {},
            .tokens = &tokens};
  }
};

/// Rows of the given lengths with random numbers in every array, in groups of two, without a mask.
inline TokenCase random_case(const std::vector<int64_t>& lengths, uint64_t seed = 0) {
  RngStream rng(7, RngPurpose::kTest, seed);
  TokenCase c;
  c.group_size = 2;
  c.tokens.kl_coef = 0.1;
  c.tokens.offsets = {0};
  const auto draw = [&] { return static_cast<float>(2 * rng.next_uniform() - 1); };
  for (const int64_t n : lengths) {
    c.tokens.offsets.push_back(c.tokens.offsets.back() + n);
    for (int64_t t = 0; t < n; ++t) {
      c.tokens.old_logprobs.push_back(-1.5F + draw());
      c.tokens.ref_logprobs.push_back(c.tokens.old_logprobs.back() + 0.3F * draw());
      c.tokens.values.push_back(draw());
    }
    c.scores.push_back(double{draw()});
    c.tokens.bootstrap_values.push_back(draw());
    c.tokens.truncated.push_back(0);
  }
  c.tokens.greedy_scores.resize(lengths.size() / 2);
  for (double& g : c.tokens.greedy_scores) g = double{draw()};
  return c;
}

/// The case without row `row`, whose group must be of one row.
inline TokenCase without_row(const TokenCase& c, size_t row) {
  TokenCase out = c;
  const auto begin = c.tokens.offsets[row], end = c.tokens.offsets[row + 1];
  const auto cut = [&](auto& x) {
    if (!x.empty()) x.erase(x.begin() + begin, x.begin() + end);
  };
  cut(out.tokens.mask);
  cut(out.tokens.old_logprobs);
  cut(out.tokens.ref_logprobs);
  cut(out.tokens.values);
  const auto at = static_cast<int64_t>(row);
  out.tokens.offsets.erase(out.tokens.offsets.begin() + at + 1);
  for (size_t i = row + 1; i < out.tokens.offsets.size(); ++i) {
    out.tokens.offsets[i] -= end - begin;
  }
  out.tokens.bootstrap_values.erase(out.tokens.bootstrap_values.begin() + at);
  out.tokens.truncated.erase(out.tokens.truncated.begin() + at);
  out.tokens.greedy_scores.erase(out.tokens.greedy_scores.begin() + at);
  out.scores.erase(out.scores.begin() + at);
  return out;
}

/// The estimators that give every token its own advantage.
inline std::vector<AdvantageEntry> token_estimators() {
  std::vector<AdvantageEntry> out;
  for (const AdvantageEntry& entry : advantage_estimators()) {
    if (entry.needs_tokens) out.push_back(entry);
  }
  return out;
}

}  // namespace temper
