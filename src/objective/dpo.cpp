#include "temper/objective/dpo.h"

#include <ATen/ops/log_sigmoid.h>

#include <algorithm>
#include <cmath>

#include "pair_losses.h"
#include "smoothed.h"
#include "temper/core/error.h"
#include "temper/objective/answer_sums.h"

namespace temper {
namespace {

at::Tensor same(const at::Tensor& x, double) { return x; }

at::Tensor forward_kl(const at::Tensor& x, double) {
  return 1.0 - (-x).clamp_max(kMaxExponent).exp();
}

at::Tensor jensen_shannon(const at::Tensor& x, double) {
  return std::log(2.0) + at::log_sigmoid(x);
}

at::Tensor alpha_divergence(const at::Tensor& x, double alpha) {
  const double a = alpha - 1.0;
  if (std::abs(a) < 1e-6) return x;
  return ((a * x).clamp_max(kMaxExponent).exp() - 1.0) / a;
}

auto score_of(const std::string& divergence) -> at::Tensor (*)(const at::Tensor&, double) {
  if (divergence == "reverse_kl") return &same;
  if (divergence == "forward_kl") return &forward_kl;
  if (divergence == "js_divergence") return &jensen_shannon;
  if (divergence == "alpha_divergence") return &alpha_divergence;
  fail(
      "[dpo] f_divergence must be \"reverse_kl\", \"forward_kl\", \"js_divergence\" or "
      "\"alpha_divergence\", got \"",
      divergence, "\"");
}

const PairLossEntry& find(const std::string& name) {
  std::vector<std::string> known;
  for (const PairLossEntry& entry : pair_losses()) {
    if (entry.name == name) return entry;
    known.emplace_back(entry.name);
  }
  const std::string nearest = nearest_name(name, known);
  fail("[dpo] unknown loss_type \"", name, "\"",
       nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
}

void check_ranges(const DpoConfig& c) {
  TEMPER_CHECK(!c.loss_type.empty(), "[dpo] loss_type must name at least one loss");
  TEMPER_CHECK(c.loss_weights.empty() || c.loss_weights.size() == c.loss_type.size(),
               "[dpo] loss_weights must have one weight for each of the ", c.loss_type.size(),
               " losses in loss_type, got ", c.loss_weights.size());
  for (const double w : c.loss_weights) {
    TEMPER_CHECK(std::isfinite(w) && w >= 0,
                 "[dpo] loss_weights must be finite and at least 0, got ", w);
  }
  TEMPER_CHECK(std::isfinite(c.beta) && c.beta > 0, "[dpo] beta must be finite and above 0, got ",
               c.beta);
  TEMPER_CHECK(c.label_smoothing >= 0 && c.label_smoothing < 0.5,
               "[dpo] label_smoothing must be in [0, 0.5), got ", c.label_smoothing);
  TEMPER_CHECK(std::isfinite(c.f_alpha), "[dpo] f_alpha must be finite, got ", c.f_alpha);
  TEMPER_CHECK(std::isfinite(c.discopop_tau) && c.discopop_tau > 0,
               "[dpo] discopop_tau must be finite and above 0, got ", c.discopop_tau);
  TEMPER_CHECK(c.ld_alpha >= 0 && c.ld_alpha <= 1, "[dpo] ld_alpha must be in [0, 1], got ",
               c.ld_alpha);
}

/// One loss against the settings that not every loss goes with.
void check_fit(const PairLossEntry& entry, const DpoConfig& c) {
  TEMPER_CHECK(entry.divergences || c.f_divergence == "reverse_kl", "[dpo] f_divergence \"",
               c.f_divergence, "\" does not go with loss_type \"", entry.name,
               "\": outside a difference of rewards the prompt's normaliser does not cancel; set "
               "f_divergence to \"reverse_kl\"");
  TEMPER_CHECK(entry.weighted || !c.use_weighting,
               "[dpo] use_weighting does not go with loss_type \"", entry.name,
               "\", which has no weight a pair");
  TEMPER_CHECK(!entry.sorted || c.ld_alpha == 1, "[dpo] ld_alpha does not go with loss_type \"",
               entry.name, "\", which sorts the sums of whole answers");
  TEMPER_CHECK(entry.name != std::string("exo_pair") || c.label_smoothing > 0,
               "[dpo] loss_type \"exo_pair\" needs a label_smoothing above 0 (try 0.001)");
}

/// WPO (Zhou et al. 2024, arXiv 2406.11827, eq. 2): exp of the mean over an answer's tokens of
/// log p - log sum_v p(v)^2, for both sides of a pair multiplied. [P], no gradient.
at::Tensor pair_weights(const AnswerTerms& t, const at::Tensor& sharp_logprobs) {
  TEMPER_CHECK(
      sharp_logprobs.defined(),
      "[dpo] use_weighting needs the batch's sharp_logprobs (log-probs at temperature 1/2)");
  const at::Tensor now = t.logprobs.detach();
  const at::Tensor sharp = sharp_logprobs.detach().to(at::kDouble).masked_fill(t.mask.eq(0), 0);
  const auto [chosen, rejected] = sides(t.mean(sharp - now).exp());
  return chosen * rejected;
}

}  // namespace

Dpo::Dpo(const Config& config) : config_(config), score_(score_of(config.f_divergence)) {
  check_ranges(config);
  needs_.pairs = true;
  needs_.sharp_logprobs = config.use_weighting;
  bool smoothing = false;
  for (size_t i = 0; i < config.loss_type.size(); ++i) {
    const PairLossEntry& entry = find(config.loss_type[i]);
    check_fit(entry, config);
    terms_.push_back({entry.loss, config.loss_weights.empty() ? 1.0 : config.loss_weights[i]});
    needs_.reference = needs_.reference || entry.reference;
    needs_.sums = needs_.sums || entry.sorted;
    smoothing = smoothing || entry.smoothing;
  }
  TEMPER_CHECK(smoothing || config.label_smoothing == 0, "[dpo] label_smoothing is ",
               config.label_smoothing,
               ", but no loss in loss_type reads it; cdpo is sigmoid with smoothing");
}

OfflineNeeds Dpo::needs() const { return needs_; }

LossOutput Dpo::operator()(const AnswerBatch& b) const {
  const AnswerTerms t = answer_terms(b);
  TEMPER_CHECK(!needs_.reference || t.ref_logprobs.defined(),
               "[dpo] this loss_type needs the batch's ref_logprobs");
  const bool all_alike = config_.ld_alpha == 1;
  const at::Tensor weights = all_alike ? at::Tensor() : shared_length_weights(t, config_.ld_alpha);
  const auto sum = [&](const at::Tensor& x) { return t.sum(all_alike ? x : x * weights); };

  PairTerms p;
  p.config = &config_;
  p.totals = &b.totals;
  p.pairs = b.answers / 2;
  p.policy = sum(t.logprobs);
  p.chosen_total = sides(all_alike ? p.policy : t.sum(t.logprobs)).chosen;
  AnswerMetrics metrics;
  if (t.ref_logprobs.defined()) {
    p.reference = sum(t.ref_logprobs);
    const at::Tensor ratio = p.policy - p.reference;
    const at::Tensor score = score_(ratio, config_.f_alpha);
    const Sides ratios = sides(ratio);
    p.chosen = ratios.chosen;
    p.rejected = ratios.rejected;
    const Sides whole = sides(score), mean = sides(score / t.lengths.clamp_min(1));
    p.delta = whole.chosen - whole.rejected;
    p.mean_delta = mean.chosen - mean.rejected;
    add_pair_rewards(metrics, {config_.beta * p.chosen, config_.beta * p.rejected});
  }
  add_pair_logps(metrics, sides(p.policy));

  const at::Tensor weight =
      config_.use_weighting ? pair_weights(t, b.sharp_logprobs) : at::Tensor();
  LossOutput out;
  for (const Term& term : terms_) {
    at::Tensor loss = term.loss(p);
    if (weight.defined()) loss = loss * weight;
    loss = loss.sum() * (term.weight / std::max(b.totals.pairs, 1.0));
    out.loss = out.loss.defined() ? out.loss + loss : loss;
  }
  out.metrics = metrics.read();
  return out;
}

}  // namespace temper
