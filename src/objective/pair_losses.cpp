#include "pair_losses.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/relu.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "smoothed.h"
#include "temper/core/error.h"
#include "temper/objective/answer_sums.h"

namespace temper {
namespace {

using at::log_sigmoid;

at::Tensor sigmoid_loss(const PairTerms& t) { return -log_sigmoid(t.config->beta * t.delta); }

at::Tensor cdpo(const PairTerms& t) {
  return smoothed_logistic(t.config->beta * t.delta, t.config->label_smoothing);
}

at::Tensor robust(const PairTerms& t) {
  const double e = t.config->label_smoothing;
  const at::Tensor x = t.config->beta * t.delta;
  return (e * log_sigmoid(-x) - (1.0 - e) * log_sigmoid(x)) / (1.0 - 2.0 * e);
}

at::Tensor hinge(const PairTerms& t) { return at::relu(1.0 - t.config->beta * t.delta); }

at::Tensor ipo(const PairTerms& t) { return (t.mean_delta - 0.5 / t.config->beta).square(); }

at::Tensor sigmoid_norm(const PairTerms& t) { return -log_sigmoid(t.config->beta * t.mean_delta); }

at::Tensor exo_pair(const PairTerms& t) {
  const double e = t.config->label_smoothing;
  const at::Tensor x = t.config->beta * t.delta;
  return x.sigmoid() * (log_sigmoid(x) - std::log1p(-e)) +
         (-x).sigmoid() * (log_sigmoid(-x) - std::log(e));
}

at::Tensor discopop(const PairTerms& t) {
  const at::Tensor u = t.config->beta * t.delta;
  const at::Tensor sharp = u / t.config->discopop_tau;
  // One exponential of a sum: exp(-u) alone overflows where its weight is 0.
  return -log_sigmoid(u) * (-sharp).sigmoid() + (log_sigmoid(sharp) - u).exp();
}

at::Tensor sft(const PairTerms& t) {
  // Divided by the pairs later on like the others, so what is left is a mean over tokens.
  return -t.chosen_total * (t.totals->pairs / std::max(t.totals->chosen_tokens, 1.0));
}

at::Tensor nca_pair(const PairTerms& t) {
  const at::Tensor c = t.config->beta * t.chosen;
  const at::Tensor r = t.config->beta * t.rejected;
  return -log_sigmoid(c) - 0.5 * log_sigmoid(-c) - 0.5 * log_sigmoid(-r);
}

at::Tensor bco_pair(const PairTerms& t) {
  return -log_sigmoid(t.config->beta * t.chosen) - log_sigmoid(-t.config->beta * t.rejected);
}

at::Tensor sppo_hard(const PairTerms& t) {
  const double target = 0.5 / t.config->beta;
  return (t.chosen - target).square() + (t.rejected + target).square();
}

at::Tensor apo_zero(const PairTerms& t) {
  return (-t.config->beta * t.chosen).sigmoid() + (t.config->beta * t.rejected).sigmoid();
}

at::Tensor apo_down(const PairTerms& t) {
  return (t.config->beta * t.chosen).sigmoid() +
         (-t.config->beta * (t.chosen - t.rejected)).sigmoid();
}

/// Of the whole step: the sums that the trainer took, or the micro-batch's own if it is the step.
std::vector<double> step_values(const std::vector<double>* given, const at::Tensor& own,
                                const AnswerTotals& totals) {
  if (given != nullptr) {
    TEMPER_CHECK(static_cast<double>(given->size()) == totals.answers && totals.first_answer >= 0 &&
                     totals.first_answer % 2 == 0 &&
                     totals.first_answer + own.size(0) <= std::ssize(*given),
                 "[dpo] totals.sums must hold the step's ", totals.answers,
                 " answers for the policy and the reference, and totals.first_answer this "
                 "micro-batch's place among them");
    return *given;
  }
  const at::Tensor host = own.detach().cpu().contiguous();
  return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + host.numel()};
}

/// What the sorted losses pair, for the whole step, in the order of its pairs.
struct StepPairs {
  std::vector<double> policy, reference;  ///< lp_w - lp_l and ref_w - ref_l.
  std::vector<double> chosen, rejected;   ///< c and r.
  int64_t first = 0;                      ///< Index of the micro-batch's first pair.
};

StepPairs step_pairs(const PairTerms& t) {
  const AnswerSums* sums = t.totals->sums;
  TEMPER_CHECK(sums != nullptr || t.totals->answers == static_cast<double>(2 * t.pairs),
               "[dpo] loss_type aot and aot_unpaired sort over the whole step, so totals.sums must "
               "be set where the step has more answers (",
               t.totals->answers, ") than the micro-batch (", 2 * t.pairs, ")");
  const auto now = step_values(sums ? &sums->logprobs : nullptr, t.policy, *t.totals);
  const auto ref = step_values(sums ? &sums->ref_logprobs : nullptr, t.reference, *t.totals);
  StepPairs s;
  s.first = sums ? t.totals->first_answer / 2 : 0;
  for (size_t w = 0; w + 1 < now.size(); w += 2) {
    const size_t l = w + 1;
    s.policy.push_back(now[w] - now[l]);
    s.reference.push_back(ref[w] - ref[l]);
    s.chosen.push_back(now[w] - ref[w]);
    s.rejected.push_back(now[l] - ref[l]);
  }
  return s;
}

at::Tensor partners(const std::vector<double>& values, const std::vector<double>& others,
                    int64_t first, const at::Tensor& like) {
  std::vector<double> found = of_equal_rank(values, others, first, like.size(0));
  return at::from_blob(found.data(), {std::ssize(found)}, at::kDouble).clone().to(like.device());
}

at::Tensor aot(const PairTerms& t) {
  const StepPairs s = step_pairs(t);
  const auto [chosen, rejected] = sides(t.policy);
  const at::Tensor own = chosen - rejected;
  const at::Tensor x = own - partners(s.reference, s.policy, s.first, own);
  return smoothed_logistic(t.config->beta * x, t.config->label_smoothing);
}

at::Tensor aot_unpaired(const PairTerms& t) {
  const StepPairs s = step_pairs(t);
  const double beta = t.config->beta, e = t.config->label_smoothing;
  const at::Tensor up = t.chosen - partners(s.rejected, s.chosen, s.first, t.chosen);
  const at::Tensor down = partners(s.chosen, s.rejected, s.first, t.rejected) - t.rejected;
  // Every term of the step comes up here twice, once from either end: half its value each time, but
  // the whole slope, as each end is constant at the other.
  const at::Tensor both = smoothed_logistic(beta * up, e) + smoothed_logistic(beta * down, e);
  return both - 0.5 * both.detach();
}

std::vector<size_t> order_of(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] < values[b]; });
  return order;
}

}  // namespace

const std::vector<PairLossEntry>& pair_losses() {
  // name, loss, divergences, smoothing, reference, sorted, weighted
  static const std::vector<PairLossEntry> table = {
      {"sigmoid", &sigmoid_loss, true, false, true, false, true},
      {"cdpo", &cdpo, true, true, true, false, true},
      {"hinge", &hinge, true, false, true, false, true},
      {"ipo", &ipo, true, false, true, false, true},
      {"sigmoid_norm", &sigmoid_norm, true, false, true, false, true},
      {"exo_pair", &exo_pair, true, true, true, false, true},
      {"robust", &robust, true, true, true, false, true},
      {"discopop", &discopop, true, false, true, false, true},
      {"sft", &sft, true, false, false, false, false},
      {"nca_pair", &nca_pair, false, false, true, false, true},
      {"bco_pair", &bco_pair, false, false, true, false, true},
      {"sppo_hard", &sppo_hard, false, false, true, false, true},
      {"aot", &aot, false, true, true, true, false},
      {"aot_unpaired", &aot_unpaired, false, true, true, true, false},
      {"apo_zero", &apo_zero, false, false, true, false, true},
      {"apo_down", &apo_down, false, false, true, false, true},
  };
  return table;
}

std::vector<double> of_equal_rank(const std::vector<double>& values,
                                  const std::vector<double>& others, int64_t first, int64_t count) {
  for (const std::vector<double>* side : {&values, &others}) {
    for (size_t i = 0; i < side->size(); ++i) {
      TEMPER_CHECK(std::isfinite((*side)[i]), "[dpo] a log-prob sum of the step's pair ", i,
                   " is not finite");
    }
  }
  const std::vector<size_t> by_value = order_of(values), by_other = order_of(others);
  std::vector<double> found(static_cast<size_t>(count));
  for (size_t rank = 0; rank < by_other.size(); ++rank) {
    const int64_t at = static_cast<int64_t>(by_other[rank]) - first;
    if (at >= 0 && at < count) found[static_cast<size_t>(at)] = values[by_value[rank]];
  }
  return found;
}

}  // namespace temper
