#include "temper/objective/orpo.h"

#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "temper/core/error.h"
#include "temper/objective/answer_sums.h"

namespace temper {
namespace {

constexpr double kMaxMeanLogprob = -1e-6;

/// log(1 - exp x) for x < 0. Each branch gets an argument at which its own slope is finite: where a
/// branch is not taken, its NaN times 0 would still be a NaN.
at::Tensor log1mexp(const at::Tensor& x) {
  const double middle = -std::log(2.0);
  const at::Tensor low = (-x.clamp_max(middle).exp()).log1p();
  const at::Tensor high = (-x.clamp_min(middle).expm1()).log();
  return at::where(x.lt(middle), low, high);
}

at::Tensor log_odds(const at::Tensor& mean_logprob) {
  const at::Tensor x = mean_logprob.clamp_max(kMaxMeanLogprob);
  return x - log1mexp(x);
}

}  // namespace

Orpo::Orpo(const Config& config) : config_(config) {
  TEMPER_CHECK(std::isfinite(config.beta) && config.beta >= 0,
               "[orpo] beta must be finite and at least 0, got ", config.beta);
}

OfflineNeeds Orpo::needs() const {
  OfflineNeeds needs;
  needs.pairs = needs.prompt_logprobs = true;
  return needs;
}

LossOutput Orpo::operator()(const AnswerBatch& b) const {
  const AnswerTerms t = answer_terms(b);
  TEMPER_CHECK(b.prompt_logprobs.defined() || b.totals.prompt_tokens == 0,
               "[orpo] the step counts ", b.totals.prompt_tokens,
               " prompt tokens, but the batch has no prompt_logprobs");
  const at::Tensor sums = t.sum(t.logprobs);
  const Sides x = sides(sums / t.lengths.clamp_min(1));
  const Sides odds = sides(log_odds(t.mean(t.logprobs)));
  const at::Tensor o = odds.chosen - odds.rejected;
  const at::Tensor ratio = at::log_sigmoid(o);

  at::Tensor nll = -sides(sums).chosen.sum();
  at::Tensor tokens = sides(t.lengths).chosen.sum();
  if (b.prompt_logprobs.defined()) {
    nll = nll - b.prompt_logprobs.to(at::kDouble).sum();
    tokens = tokens + static_cast<double>(b.prompt_logprobs.numel());
  }
  AnswerMetrics metrics;
  add_pair_rewards(metrics, {config_.beta * x.chosen, config_.beta * x.rejected});
  add_pair_logps(metrics, x);
  metrics.add_sum("nll_loss", nll, tokens);
  metrics.add_mean("log_odds_ratio", ratio);
  metrics.add_mean("log_odds_chosen", o);
  const double all = b.totals.chosen_tokens + b.totals.prompt_tokens;
  const at::Tensor odds_loss = ratio.sum() * (config_.beta / std::max(b.totals.pairs, 1.0));
  return {nll / std::max(all, 1.0) - odds_loss, metrics.read()};
}

}  // namespace temper
