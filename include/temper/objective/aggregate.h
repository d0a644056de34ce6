#pragma once

#include "temper/objective/policy_tokens.h"

namespace temper {

/// How tokens' losses become one number. Every rule is a weighted sum with constant weights, so a
/// rule is a function from the tokens to weights [N]; masked tokens weigh 0.
///
/// The divisors are those of the whole optimizer step, over all micro-batches and ranks: weights of
/// different micro-batches fit together by adding. A divisor of 0 counts as 1: such a step has no
/// active token, and its loss and gradient are 0.
using Aggregation = at::Tensor (*)(const PolicyTokens&);

/// `m / N`: each token counts the same, so long completions weigh more.
[[nodiscard]] at::Tensor token_mean(const PolicyTokens& t);
/// `m / (n_i B)`: each completion counts the same. A token of a long one counts less.
[[nodiscard]] at::Tensor sequence_mean_of_token_means(const PolicyTokens& t);
/// `m / B`: each completion counts by its length.
[[nodiscard]] at::Tensor sequence_mean_of_sums(const PolicyTokens& t);
/// `m / (B L_max)`: each token counts the same, whatever the lengths in this step.
/// @throws Error unless `totals.max_completion_tokens` is positive.
[[nodiscard]] at::Tensor fixed_length_mean(const PolicyTokens& t);

}  // namespace temper
