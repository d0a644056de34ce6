#include "temper/kernels/kl_penalty.h"

#include <algorithm>

#include "cpu/ragged.h"
#include "kl_formula.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

namespace temper::kernels {

void kl_penalty(const KlPenaltyArgs& a) {
  TEMPER_CHECK(a.tokens >= 0, "[kl_penalty] tokens must be >= 0, got ", a.tokens);
  const bool exact = a.estimator == KlEstimator::kExact;
  TEMPER_CHECK(!exact || a.exact != nullptr || a.tokens == 0,
               "[kl_penalty] the exact estimator needs the KL over the vocabulary as an input");
  if (const auto op = replacement(&KernelTable::kl_penalty)) return op(a);
  parallel_for(a.tokens, kTokensPerThread, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const bool active = a.mask == nullptr || a.mask[t] != 0;
      KlTerm term{0, 0};
      if (active && exact) term = kl_term(a.estimator, 0, double{a.exact[t]});
      if (active && !exact) {
        term = kl_term(a.estimator, double{a.logprobs[t]} - double{a.ref_logprobs[t]}, 0);
      }
      a.kl[t] = static_cast<float>(term.value);
      if (a.dlogprobs != nullptr) a.dlogprobs[t] = static_cast<float>(term.slope);
    }
  });
}

void shape_rewards(const ShapeRewardsArgs& a) {
  TEMPER_CHECK(a.score_clip >= 0, "[shape_rewards] score_clip must be >= 0, got ", a.score_clip);
  if (const auto op = replacement(&KernelTable::shape_rewards)) return op(a);
  for_sequences("shape_rewards", a.offsets, a.sequences,
                [&](int64_t i, int64_t first, int64_t end) {
                  int64_t last = end;
                  for (int64_t t = end - 1; t >= first; --t) {
                    const bool active = a.mask == nullptr || a.mask[t] != 0;
                    if (active && last == end) last = t;
                    double reward = active ? kl_reward(a.kl, t, a.kl_coef) : 0.0;
                    if (t == last) reward += clip_score(double{a.scores[i]}, a.score_clip);
                    a.rewards[t] = static_cast<float>(reward);
                  }
                });
}

}  // namespace temper::kernels
