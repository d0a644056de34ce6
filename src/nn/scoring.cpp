#include "temper/nn/scoring.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "temper/core/error.h"
#include "temper/kernels/linear_logprob.h"

namespace temper {
namespace {

void check_request(const CausalLM& model, const TokenBatch& batch, const ScoreRequest& request) {
  TEMPER_CHECK(request.rows.size() == request.targets.size(), "[score] ", request.rows.size(),
               " rows but ", request.targets.size(), " targets");
  for (size_t m = 0; m < request.rows.size(); ++m) {
    TEMPER_CHECK(request.rows[m] >= 0 && request.rows[m] < batch.rows(), "[score] row ",
                 request.rows[m], " is outside the batch of ", batch.rows(), " tokens");
    TEMPER_CHECK(request.targets[m] >= 0 && request.targets[m] < model.config().vocab_size,
                 "[score] targets must be in [0, ", model.config().vocab_size, "), got ",
                 request.targets[m], " at ", m);
  }
}

/// The head over the rows of a tape.
kernels::LinearLogprobArgs taped_args(CausalLM& model, const ScoringTape& tape) {
  return {.hidden = tape.hidden_rows.data(),
          .hidden_stride = model.config().hidden_size,
          .head = model.head().packed(),
          .targets = tape.request.targets.data(),
          .rows = static_cast<int64_t>(tape.request.rows.size()),
          .inverse_temperature = tape.inverse_temperature,
          .logprob = tape.scores.logprobs.data_ptr<float>(),
          .entropy = tape.scores.entropy.data_ptr<float>(),
          .max = tape.max.data(),
          .log_sum = tape.log_sum.data()};
}

/// Gathers the rows that the head reads. The tape keeps what the backward needs.
kernels::LinearLogprobArgs head_args(CausalLM& model, const at::Tensor& hidden, ScoringTape& tape) {
  const int64_t m = static_cast<int64_t>(tape.request.rows.size());
  const int64_t k = model.config().hidden_size;
  float* rows = tape.hidden_rows.ensure(static_cast<size_t>(m * k));
  const float* from = hidden.data_ptr<float>();
  for (int64_t i = 0; i < m; ++i) {
    std::copy_n(from + tape.request.rows[static_cast<size_t>(i)] * k, k, rows + i * k);
  }
  tape.scores = {at::empty({m}, at::kFloat), at::empty({m}, at::kFloat)};
  tape.applied = {};
  tape.as_expected = false;
  tape.max.ensure(static_cast<size_t>(m));
  tape.log_sum.ensure(static_cast<size_t>(m));
  return taped_args(model, tape);
}

TokenScores run_head(CausalLM& model, const at::Tensor& hidden, ScoringTape& tape) {
  kernels::linear_logprob(head_args(model, hidden, tape));
  // A largest logit less itself is 0, which leaves the normaliser, bit for bit.
  const int64_t m = tape.scores.logprobs.numel();
  tape.scores.best = at::empty({m}, at::kFloat);
  std::transform(tape.log_sum.data(), tape.log_sum.data() + m, tape.scores.best.data_ptr<float>(),
                 [](float x) { return -x; });
  return tape.scores;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b, int64_t begin, int64_t end) {
  return std::memcmp(a.data_ptr<float>() + begin, b.data_ptr<float>() + begin,
                     static_cast<size_t>(end - begin) * sizeof(float)) == 0;
}

at::Tensor as_floats(const at::Tensor& t, int64_t m) {
  if (!t.defined()) return at::zeros({m}, at::kFloat);
  TEMPER_CHECK(t.numel() == m, "[score_backward] expected ", m,
               " gradients, one a scored token, got ", t.numel());
  return t.to(at::kFloat).contiguous();
}

bool any_gradient(const ScoreGradients& g) {
  const auto any = [](const at::Tensor& t) { return t.count_nonzero().item<int64_t>() > 0; };
  return any(g.logprobs) || any(g.entropy);
}

/// The head's backward for the rows of the tape, into `drows` [M, k].
kernels::LinearLogprobBackwardArgs backward_args(CausalLM& model, const ScoringTape& tape,
                                                 const ScoreGradients& g, float* drows) {
  return {.forward = taped_args(model, tape),
          .dlogprob = g.logprobs.data_ptr<float>(),
          .dentropy = g.entropy.defined() ? g.entropy.data_ptr<float>() : nullptr,
          .dhidden = drows,
          .dhidden_stride = model.config().hidden_size,
          .dweight = model.head().grad_data()};
}

float inverse_of(double temperature) {
  TEMPER_CHECK(temperature > 0, "[score] temperature must be above 0, got ", temperature);
  return 1.0f / static_cast<float>(temperature);
}

}  // namespace

TokenScores score(CausalLM& model, const TokenBatch& batch, const ScoreRequest& request,
                  double temperature) {
  check_request(model, batch, request);
  ScoringTape tape;
  tape.request = request;
  tape.inverse_temperature = inverse_of(temperature);
  return run_head(model, model.forward(batch), tape);
}

TokenScores score_train(CausalLM& model, const TokenBatch& batch, const ScoreRequest& request,
                        double temperature, ScoringTape& tape) {
  check_request(model, batch, request);
  tape.request = request;
  tape.inverse_temperature = inverse_of(temperature);
  return run_head(model, model.forward_train(batch, tape.forward), tape);
}

TokenScores score_train(CausalLM& model, const TokenBatch& batch, const ScoreRequest& request,
                        double temperature, const ExpectedScores& expected, ScoringTape& tape) {
  check_request(model, batch, request);
  tape.request = request;
  tape.inverse_temperature = inverse_of(temperature);
  const int64_t m = std::ssize(request.rows), k = model.config().hidden_size;
  TEMPER_CHECK(expected.scores.logprobs.numel() == m && expected.scores.entropy.numel() == m,
               "[score_train] expected scores must be ", m, ", one a scored token");
  const ScoreGradients given{as_floats(expected.gradients.logprobs, m),
                             as_floats(expected.gradients.entropy, m)};
  (void)head_args(model, model.forward_train(batch, tape.forward), tape);
  tape.applied = {at::zeros({m}, at::kFloat), at::zeros({m}, at::kFloat)};
  tape.as_expected = true;
  const auto take = [&](int64_t begin, int64_t end) {
    tape.as_expected = tape.as_expected &&
                       same_bits(tape.scores.logprobs, expected.scores.logprobs, begin, end) &&
                       same_bits(tape.scores.entropy, expected.scores.entropy, begin, end);
    if (!tape.as_expected) return;  // These and all later rows stay zero.
    tape.applied.logprobs.slice(0, begin, end).copy_(given.logprobs.slice(0, begin, end));
    tape.applied.entropy.slice(0, begin, end).copy_(given.entropy.slice(0, begin, end));
  };
  float* drows = tape.dhidden_rows.ensure(static_cast<size_t>(m * k));
  kernels::linear_logprob_train({backward_args(model, tape, tape.applied, drows), take});
  return tape.scores;
}

at::Tensor taped_hidden(const CausalLM& model, const ScoringTape& tape) {
  return at::from_blob(tape.forward.hidden.data(),
                       {tape.forward.batch.rows(), model.config().hidden_size}, at::kFloat);
}

void score_backward(CausalLM& model, ScoringTape& tape, const at::Tensor& dlogprobs,
                    const at::Tensor& dentropy, const at::Tensor& dhidden_of_others) {
  const int64_t m = std::ssize(tape.request.rows), k = model.config().hidden_size;
  const size_t size = static_cast<size_t>(m * k);
  ScoreGradients g{as_floats(dlogprobs, m), as_floats(dentropy, m)};
  float* drows = tape.dhidden_rows.ensure(size);
  if (!tape.applied.logprobs.defined()) {
    kernels::linear_logprob_backward(backward_args(model, tape, g, drows));
  } else {
    // Gradients are linear in these: the rest is added to what was applied, if there is any.
    g = {g.logprobs - tape.applied.logprobs, g.entropy - tape.applied.entropy};
    if (any_gradient(g)) {
      std::vector<float> rest(size);
      kernels::linear_logprob_backward(backward_args(model, tape, g, rest.data()));
      for (size_t i = 0; i < size; ++i) drows[i] += rest[i];
    }
  }
  at::Tensor dhidden = at::zeros({tape.forward.batch.rows(), k}, at::kFloat);
  float* to = dhidden.data_ptr<float>();
  for (int64_t i = 0; i < m; ++i) {
    float* row = to + tape.request.rows[static_cast<size_t>(i)] * k;
    for (int64_t j = 0; j < k; ++j) row[j] += drows[i * k + j];
  }
  if (dhidden_of_others.defined()) {
    TEMPER_CHECK(dhidden_of_others.numel() == dhidden.numel(), "[score_backward] dhidden has ",
                 dhidden_of_others.numel(), " elements, expected ", tape.forward.batch.rows(),
                 " x ", k);
    dhidden.add_(dhidden_of_others.to(at::kFloat).reshape(dhidden.sizes()));
  }
  model.backward(tape.forward, dhidden);
}

}  // namespace temper
