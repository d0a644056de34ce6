#include "temper/objective/gae.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "temper/core/error.h"
#include "temper/kernels/gae.h"
#include "token_rewards.h"

namespace temper {
namespace {

/// The table with a step more behind each row that ends before the longest one, where TRL has its
/// first pad slot: an active step without KL, whose value is the row's bootstrap value.
TokenTable with_phantom_steps(const TokenTable& t) {
  int64_t longest = 0;
  for (size_t row = 0; row + 1 < t.offsets.size(); ++row) {
    longest = std::max(longest, t.offsets[row + 1] - t.offsets[row]);
  }
  TokenTable out;
  out.kl_coef = t.kl_coef;
  out.offsets.push_back(0);
  const bool reference = !t.ref_logprobs.empty();
  for (size_t row = 0; row + 1 < t.offsets.size(); ++row) {
    const auto begin = static_cast<size_t>(t.offsets[row]);
    const auto end = static_cast<size_t>(t.offsets[row + 1]);
    bool active = false;
    for (size_t i = begin; i < end; ++i) {
      out.mask.push_back(t.mask.empty() ? uint8_t{1} : t.mask[i]);
      active = active || out.mask.back() != 0;
      out.values.push_back(t.values[i]);
      if (reference) out.old_logprobs.push_back(t.old_logprobs[i]);
      if (reference) out.ref_logprobs.push_back(t.ref_logprobs[i]);
    }
    if (active && static_cast<int64_t>(end - begin) < longest) {
      out.mask.push_back(1);
      out.values.push_back(t.bootstrap_values[row]);
      if (reference) out.old_logprobs.push_back(0);
      if (reference) out.ref_logprobs.push_back(0);
    }
    out.offsets.push_back(static_cast<int64_t>(out.mask.size()));
  }
  return out;
}

/// An array over `from`'s steps cut back to those of `to`: each row loses its phantom.
template <class T>
std::vector<T> without_phantom_steps(const std::vector<T>& x, const TokenTable& from,
                                     const TokenTable& to) {
  std::vector<T> out;
  for (size_t row = 0; row + 1 < to.offsets.size(); ++row) {
    const auto begin = x.begin() + from.offsets[row];
    out.insert(out.end(), begin, begin + (to.offsets[row + 1] - to.offsets[row]));
  }
  return out;
}

/// One pass of the kernel; `alpha` above 0 gives each row a lambda by its length.
struct GaePass {
  const TokenTable& t;
  const TokenRewards& r;
  bool bootstrap;
  double gamma;

  void operator()(double lambda, double alpha, float* advantages, float* returns) const {
    kernels::GaeArgs args{.rewards = r.rewards.data(),
                          .values = t.values.data(),
                          .mask = r.active.data(),
                          .offsets = t.offsets.data(),
                          .sequences = t.rows(),
                          .bootstrap_values = bootstrap ? t.bootstrap_values.data() : nullptr,
                          .truncated = bootstrap ? t.truncated.data() : nullptr,
                          .gamma = gamma,
                          .lambda = lambda,
                          .advantages = advantages,
                          .returns = returns};
    if (alpha <= 0) return kernels::gae(args);
    args.sequences = 1;
    for (int64_t row = 0; row < t.rows(); ++row, ++args.offsets) {
      const auto begin = r.active.begin() + args.offsets[0];
      const auto n = std::count_if(begin, r.active.begin() + args.offsets[1],
                                   [](uint8_t active) { return active != 0; });
      args.lambda = n == 0 ? 0 : std::max(0.0, 1 - 1 / (alpha * static_cast<double>(n)));
      kernels::gae(args);
      if (bootstrap) {
        ++args.bootstrap_values;
        ++args.truncated;
      }
    }
  }
};

/// A critic that diverged would turn the whole rollout into NaN by the whitening.
void check_values(const TokenTable& t, std::span<const uint8_t> active) {
  for (size_t i = 0; i < t.values.size(); ++i) {
    TEMPER_CHECK(active[i] == 0 || std::isfinite(t.values[i]), "[gae] the value at token ", i,
                 " of the rollout is ", t.values[i]);
  }
}

/// The checks of what the settings need from the table; whether there is a state to bootstrap from.
bool bootstraps(const TokenTable& t, const GaeConfig& config) {
  TEMPER_CHECK(static_cast<int64_t>(t.values.size()) == t.tokens(),
               "[gae] this estimator needs a critic's values (TokenTable::values)");
  const bool cut = std::any_of(t.truncated.begin(), t.truncated.end(), [](uint8_t c) { return c; });
  const bool bootstrap = config.bootstrap_truncated && cut;
  TEMPER_CHECK(!(bootstrap || config.trl_compat) || !t.bootstrap_values.empty() || t.rows() == 0,
               "[gae] ", config.trl_compat ? "trl_compat" : "bootstrap_truncated",
               " needs the values behind the last tokens (TokenTable::bootstrap_values)");
  for (size_t row = 0; bootstrap && row < t.truncated.size(); ++row) {
    TEMPER_CHECK(t.truncated[row] == 0 || std::isfinite(t.bootstrap_values[row]),
                 "[gae] the bootstrap value of row ", row, " is ", t.bootstrap_values[row]);
  }
  return bootstrap;
}

/// A row that nobody scored has no target; its own value leaves the critic alone there.
void keep_unscored_values(const TokenTable& t, std::span<const uint8_t> active,
                          std::vector<float>& returns) {
  for (size_t i = 0; i < returns.size(); ++i) {
    if (active[i] == 0 && (t.mask.empty() || t.mask[i] != 0)) returns[i] = t.values[i];
  }
}

}  // namespace

Gae::Gae(const Config& config) : config_(config) {
  const TokenRewardTerms checked(config, "gae");
  check_share(config.gamma, "gae", "gamma");
  check_share(config.lambda, "gae", "lambda");
  TEMPER_CHECK(config.lambda_value <= 1, "[gae] lambda_value must be in [0, 1] or negative, got ",
               config.lambda_value);
  TEMPER_CHECK(std::isfinite(config.length_adaptive_alpha) && config.length_adaptive_alpha >= 0,
               "[gae] length_adaptive_alpha must be finite and at least 0, got ",
               config.length_adaptive_alpha);
  TEMPER_CHECK(!config.trl_compat || !config.bootstrap_truncated,
               "[gae] trl_compat has no bootstrap: set bootstrap_truncated to false");
}

Advantages Gae::operator()(const RewardTable& table) const {
  const TokenTable& given = tokens_of(table, "gae");
  const bool bootstrap = bootstraps(given, config_);
  const TokenRewardTerms terms(config_, "gae");
  std::optional<TokenTable> phantom;
  if (config_.trl_compat) phantom = with_phantom_steps(given);
  const TokenTable& t = phantom ? *phantom : given;

  Advantages a = CenteredAdvantage{}(table);
  TokenRewards r = token_rewards(t, row_scores(given, a.rewards, terms), terms, a);
  check_values(t, r.active);
  if (config_.reward_whiten) whiten_active(r.rewards, r.active, /*shift_mean=*/false);
  a.tokens.resize(r.rewards.size());
  a.returns.resize(r.rewards.size());
  const GaePass pass{t, r, bootstrap, config_.gamma};
  pass(config_.lambda, config_.length_adaptive_alpha, a.tokens.data(), a.returns.data());
  if (config_.lambda_value >= 0) {
    std::vector<float> unused(a.tokens.size());
    pass(config_.lambda_value, 0, unused.data(), a.returns.data());
  }
  if (phantom) {
    a.tokens = without_phantom_steps(a.tokens, t, given);
    a.returns = without_phantom_steps(a.returns, t, given);
    r.active = without_phantom_steps(r.active, t, given);
  }
  keep_unscored_values(given, r.active, a.returns);
  if (config_.whiten) whiten_active(a.tokens, r.active, /*shift_mean=*/true);
  finish_rows(given, r.active, table.group_size, a);
  return a;
}

}  // namespace temper
