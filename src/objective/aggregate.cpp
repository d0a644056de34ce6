#include "temper/objective/aggregate.h"

#include <algorithm>

#include "temper/core/error.h"

namespace temper {
namespace {

double step_sequences(const PolicyTokens& t) { return std::max(t.totals.sequences, 1.0); }

}  // namespace

at::Tensor token_mean(const PolicyTokens& t) { return t.mask / std::max(t.totals.tokens, 1.0); }

at::Tensor sequence_mean_of_token_means(const PolicyTokens& t) {
  return t.mask / (t.spread(t.lengths.clamp_min(1)) * step_sequences(t));
}

at::Tensor sequence_mean_of_sums(const PolicyTokens& t) { return t.mask / step_sequences(t); }

at::Tensor fixed_length_mean(const PolicyTokens& t) {
  TEMPER_CHECK(t.totals.max_completion_tokens > 0,
               "[objective] this loss divides by totals.max_completion_tokens, which must be "
               "positive, got ", t.totals.max_completion_tokens);
  return t.mask / (step_sequences(t) * static_cast<double>(t.totals.max_completion_tokens));
}

}  // namespace temper
