#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "temper/kernels/kl_penalty.h"

namespace temper {

/// The tokens of one rollout, flat and in row order, for estimators that give every token its own
/// advantage. Measured once, before the rollout's first update.
struct TokenTable {
  std::vector<int64_t> offsets;         ///< [rows + 1] from 0 to the number of tokens.
  std::vector<uint8_t> mask;            ///< [tokens] 0: not an action; empty: all are.
  std::vector<float> old_logprobs;      ///< [tokens] nats; may be empty where no KL is wanted.
  std::vector<float> ref_logprobs;      ///< [tokens] nats, or empty: no reference.
  std::vector<float> values;            ///< [tokens] V before each token, or empty: no critic.
  std::vector<float> bootstrap_values;  ///< [rows] V behind the last token, or empty.
  std::vector<uint8_t> truncated;       ///< [rows] 1: cut by the length limit; empty: none was.
  double kl_coef = 0;                   ///< Weight of the KL in the reward, at least 0.
  double reward_scale = 1;              ///< Factor of every score; see `RunningScale`.
  std::vector<double> greedy_scores;    ///< [groups] score of the prompt's greedy completion, NaN:
                                        ///< not scored; or empty.

  [[nodiscard]] int64_t rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
  [[nodiscard]] int64_t tokens() const { return offsets.empty() ? 0 : offsets.back(); }
  /// The KL enters the reward: a reference is there and its coefficient is not 0.
  [[nodiscard]] bool has_kl() const { return kl_coef != 0 && !ref_logprobs.empty(); }
};

/// @throws Error if a length does not fit `rows` rows in groups of `group_size`, offsets do not
///         ascend from 0, or a coefficient is negative or not finite.
void check_token_table(const TokenTable& table, int64_t rows, int64_t group_size);

/// The KL of a rollout's tokens to the reference.
struct TokenKl {
  std::vector<float> tokens;  ///< [tokens] nats, 0 where masked; empty without a reference.
  std::vector<double> sums;   ///< [rows] over active tokens, in token order; likewise.
};

/// By `kernels::kl_penalty`; empty without a reference, whatever the coefficient is.
[[nodiscard]] TokenKl token_kl(const TokenTable& table, kernels::KlEstimator estimator);

/// How a row's score becomes the rewards of its tokens, for every estimator with a `TokenTable`:
///
///     r_t = -kl_coef kl_t,  and at the last active token
///     + clip(reward_scale (R - missing_eos_penalty [if truncated]), +-reward_clip)
struct TokenRewardConfig {
  std::string kl_estimator = "k1";
  double missing_eos_penalty = 0;
  double reward_clip = 0;

  template <class V>
  void visit(V&& v) {
    v(kl_estimator, "kl_estimator",
      "Estimator of the KL in the reward: k1 is unbiased, k3 is never negative.", {"k1", "k3"});
    v(missing_eos_penalty, "missing_eos_penalty",
      "Taken off the score of a completion that was cut by the length limit, at least 0.");
    v(reward_clip, "reward_clip", "Scores are clamped to +-this, after scaling; 0: not.");
  }
};

}  // namespace temper
