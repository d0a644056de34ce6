#include "temper/objective/token_table.h"

#include <algorithm>
#include <cmath>

#include "temper/core/error.h"

namespace temper {
namespace {

template <class T>
void check_length(const std::vector<T>& values, const char* name, int64_t want, bool optional) {
  TEMPER_CHECK((optional && values.empty()) || static_cast<int64_t>(values.size()) == want,
               "[tokens] ", name, " must have ", want, " entries", optional ? " or none" : "",
               ", got ", values.size());
}

}  // namespace

void check_token_table(const TokenTable& t, int64_t rows, int64_t group_size) {
  check_length(t.offsets, "offsets", rows + 1, false);
  TEMPER_CHECK(t.offsets.front() == 0 && std::is_sorted(t.offsets.begin(), t.offsets.end()),
               "[tokens] offsets must ascend from 0");
  const int64_t tokens = t.tokens();
  check_length(t.mask, "mask", tokens, true);
  check_length(t.old_logprobs, "old_logprobs", tokens, t.ref_logprobs.empty());
  check_length(t.ref_logprobs, "ref_logprobs", tokens, true);
  check_length(t.values, "values", tokens, true);
  check_length(t.bootstrap_values, "bootstrap_values", rows, true);
  check_length(t.truncated, "truncated", rows, true);
  check_length(t.greedy_scores, "greedy_scores", rows / group_size, true);
  TEMPER_CHECK(std::isfinite(t.kl_coef) && t.kl_coef >= 0,
               "[tokens] kl_coef must be finite and at least 0, got ", t.kl_coef);
  TEMPER_CHECK(std::isfinite(t.reward_scale) && t.reward_scale > 0,
               "[tokens] reward_scale must be finite and positive, got ", t.reward_scale);
}

TokenKl token_kl(const TokenTable& t, kernels::KlEstimator estimator) {
  TokenKl kl;
  if (t.ref_logprobs.empty()) return kl;
  kl.tokens.resize(static_cast<size_t>(t.tokens()));
  kernels::kl_penalty({.logprobs = t.old_logprobs.data(),
                       .ref_logprobs = t.ref_logprobs.data(),
                       .mask = t.mask.empty() ? nullptr : t.mask.data(),
                       .tokens = t.tokens(),
                       .estimator = estimator,
                       .kl = kl.tokens.data()});
  for (size_t row = 0; row + 1 < t.offsets.size(); ++row) {
    double sum = 0;
    for (int64_t i = t.offsets[row]; i < t.offsets[row + 1]; ++i) {
      sum += double{kl.tokens[static_cast<size_t>(i)]};
    }
    kl.sums.push_back(sum);
  }
  return kl;
}

}  // namespace temper
