#include "temper/objective/sft.h"

#include <algorithm>

#include "temper/core/error.h"
#include "temper/objective/answer_sums.h"

namespace temper {

Sft::Sft(const Config& config) : by_probability_(config.loss_type == "dft") {
  TEMPER_CHECK(by_probability_ || config.loss_type == "nll",
               "[sft] loss_type must be \"nll\" or \"dft\", got \"", config.loss_type, "\"");
}

LossOutput Sft::operator()(const AnswerBatch& b) const {
  const AnswerTerms t = answer_terms(b);
  const at::Tensor nll = -t.logprobs * t.mask;
  const at::Tensor loss = by_probability_ ? nll * t.logprobs.detach().exp() : nll;
  AnswerMetrics metrics;
  metrics.add_mean_where("nll_loss", nll, t.mask);
  return {loss.sum() / std::max(b.totals.tokens, 1.0), metrics.read()};
}

}  // namespace temper
