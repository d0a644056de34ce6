#include "temper/objective/policy_tokens.h"

#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "temper/core/error.h"

namespace temper {
namespace {

void check_tokens(const at::Tensor& t, const char* name, int64_t n) {
  TEMPER_CHECK(t.dim() == 1 && t.size(0) == n, "[objective] ", name, " must have shape [", n,
               "] like the log-probabilities, got ", t.dim(), " dimensions and ", t.numel(),
               " values");
}

void check_batch(const RolloutBatch& b) {
  TEMPER_CHECK(b.logprobs.defined() && b.logprobs.dim() == 1 && b.logprobs.is_floating_point(),
               "[objective] logprobs must be a floating tensor of shape [tokens]");
  TEMPER_CHECK(b.mask.defined() && b.sequence.defined() && b.advantages.defined(),
               "[objective] mask, sequence and advantages must be set");
  const int64_t n = b.logprobs.size(0);
  check_tokens(b.mask, "mask", n);
  check_tokens(b.sequence, "sequence", n);
  TEMPER_CHECK(b.sequence.scalar_type() == at::kLong, "[objective] sequence must be int64");
  if (b.old_logprobs.defined()) check_tokens(b.old_logprobs, "old_logprobs", n);
  if (b.ref_logprobs.defined()) check_tokens(b.ref_logprobs, "ref_logprobs", n);
  if (b.entropy.defined()) check_tokens(b.entropy, "entropy", n);
  const int64_t a = b.advantages.dim() == 1 ? b.advantages.size(0) : -1;
  TEMPER_CHECK(a == b.sequences || a == n, "[objective] advantages must have shape [",
               b.sequences, "] (completions) or [", n, "] (tokens), got ", b.advantages.dim(),
               " dimensions and ", b.advantages.numel(), " values");
  TEMPER_CHECK(b.totals.sequences >= static_cast<double>(b.sequences),
               "[objective] totals.sequences must count the whole optimizer step: it is ",
               b.totals.sequences, ", and this micro-batch alone has ", b.sequences);
}

}  // namespace

at::Tensor PolicyTokens::sum_rows(const at::Tensor& values) const {
  return at::zeros({sequences}, values.options()).index_add(0, sequence, values * mask);
}

at::Tensor PolicyTokens::spread(const at::Tensor& rows) const {
  return rows.index_select(0, sequence);
}

at::Tensor PolicyTokens::mean_rows(const at::Tensor& values) const {
  return sum_rows(values) / lengths.clamp_min(1);
}

PolicyTokens policy_tokens(const RolloutBatch& b) {
  check_batch(b);
  const at::Tensor active = b.mask.ne(0);
  const auto read = [&](const at::Tensor& x) {
    return at::where(active, x.to(at::kDouble), at::zeros({}, x.options().dtype(at::kDouble)));
  };
  PolicyTokens t;
  t.sequences = b.sequences;
  t.totals = b.totals;
  t.sequence = b.sequence;
  t.mask = active.to(at::kDouble);
  t.active = t.mask.sum().item<double>();
  TEMPER_CHECK(t.active <= b.totals.tokens + 0.5,
               "[objective] totals.tokens must count the whole optimizer step: it is ",
               b.totals.tokens, ", and this micro-batch alone has ", t.active, " active tokens");
  t.lengths = at::zeros({b.sequences}, t.mask.options()).index_add(0, b.sequence, t.mask);
  t.logprobs = read(b.logprobs);
  t.log_ratio =
      t.logprobs - (b.old_logprobs.defined() ? read(b.old_logprobs.detach()) : t.logprobs.detach());
  if (b.ref_logprobs.defined()) t.ref_logprobs = read(b.ref_logprobs.detach());
  if (b.entropy.defined()) t.entropy = read(b.entropy);
  const at::Tensor advantages = b.advantages.detach().to(at::kDouble);
  if (advantages.size(0) == b.sequences) {
    t.row_advantages = advantages;
    t.advantages = t.spread(advantages);
  } else {
    t.advantages = read(advantages);
  }
  return t;
}

}  // namespace temper
