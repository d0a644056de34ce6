#include "temper/objective/cpo.h"

#include <ATen/ops/relu.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "smoothed.h"
#include "temper/core/error.h"
#include "temper/objective/answer_sums.h"

namespace temper {
namespace {

at::Tensor sigmoid_loss(const at::Tensor& d, const Cpo::Config& c) {
  return smoothed_logistic(c.beta * d, c.label_smoothing);
}

at::Tensor simpo(const at::Tensor& d, const Cpo::Config& c) {
  return smoothed_logistic(c.beta * d - c.simpo_gamma, c.label_smoothing);
}

at::Tensor hinge(const at::Tensor& d, const Cpo::Config& c) { return at::relu(1.0 - c.beta * d); }

at::Tensor ipo(const at::Tensor& d, const Cpo::Config& c) { return (d - 0.5 / c.beta).square(); }

struct Row {
  const char* name;
  at::Tensor (*loss)(const at::Tensor&, const Cpo::Config&);
  bool means;
  bool smoothing;
  bool likelihood;  ///< Takes `cpo_alpha` as it is set; else it is 0.
};

constexpr std::array kRows = {
    Row{"sigmoid", &sigmoid_loss, false, true, true},
    Row{"hinge", &hinge, false, false, true},
    Row{"ipo", &ipo, true, false, true},
    Row{"simpo", &simpo, true, true, true},
    Row{"alphapo", &simpo, true, true, false},
};

void check_ranges(const Cpo::Config& c) {
  TEMPER_CHECK(std::isfinite(c.beta) && c.beta > 0, "[cpo] beta must be finite and above 0, got ",
               c.beta);
  TEMPER_CHECK(std::isfinite(c.cpo_alpha) && c.cpo_alpha >= 0,
               "[cpo] cpo_alpha must be finite and at least 0, got ", c.cpo_alpha);
  TEMPER_CHECK(std::isfinite(c.simpo_gamma) && c.simpo_gamma >= 0,
               "[cpo] simpo_gamma must be finite and at least 0, got ", c.simpo_gamma);
  TEMPER_CHECK(c.label_smoothing >= 0 && c.label_smoothing < 0.5,
               "[cpo] label_smoothing must be in [0, 0.5), got ", c.label_smoothing);
  TEMPER_CHECK(std::isfinite(c.alpha), "[cpo] alpha must be finite, got ", c.alpha);
}

}  // namespace

Cpo::Cpo(const Config& config) : config_(config) {
  const auto row = std::find_if(kRows.begin(), kRows.end(),
                                [&](const Row& r) { return r.name == config.loss_type; });
  TEMPER_CHECK(row != kRows.end(),
               "[cpo] loss_type must be \"sigmoid\", \"hinge\", \"ipo\", \"simpo\" or \"alphapo\", "
               "got \"",
               config.loss_type, "\"");
  check_ranges(config);
  TEMPER_CHECK(row->smoothing || config.label_smoothing == 0, "[cpo] label_smoothing is ",
               config.label_smoothing, ", but loss_type \"", row->name, "\" does not read it");
  loss_ = row->loss;
  means_ = row->means;
  if (!row->likelihood) config_.cpo_alpha = 0;
}

OfflineNeeds Cpo::needs() const {
  OfflineNeeds needs;
  needs.pairs = true;
  return needs;
}

LossOutput Cpo::operator()(const AnswerBatch& b) const {
  const AnswerTerms t = answer_terms(b);
  const at::Tensor sums = t.sum(t.logprobs);
  const at::Tensor logps = means_ ? sums / t.lengths.clamp_min(1) : sums;
  const double a = config_.alpha;
  const Sides x = sides(a == 0 ? logps : (1.0 - (-a * logps).clamp_max(kMaxExponent).exp()) / a);
  const at::Tensor losses = loss_(x.chosen - x.rejected, config_);
  LossOutput out{losses.sum() / std::max(b.totals.pairs, 1.0), {}};

  AnswerMetrics metrics;
  add_pair_rewards(metrics, {config_.beta * x.chosen, config_.beta * x.rejected});
  add_pair_logps(metrics, sides(logps));
  if (config_.cpo_alpha > 0) {
    const at::Tensor nll = -sides(sums).chosen.sum();
    metrics.add_sum("nll_loss", nll, sides(t.lengths).chosen.sum());
    out.loss = out.loss + config_.cpo_alpha * nll / std::max(b.totals.chosen_tokens, 1.0);
  }
  out.metrics = metrics.read();
  if (config_.cpo_alpha == 0) out.metrics.add_mean("nll_loss", 0, 1);
  return out;
}

}  // namespace temper
