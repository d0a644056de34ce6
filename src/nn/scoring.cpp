#include "temper/nn/scoring.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

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

/// Gathers the rows and runs the head over them. The tape keeps what the backward needs.
TokenScores run_head(CausalLM& model, const at::Tensor& hidden, ScoringTape& tape) {
  const int64_t m = static_cast<int64_t>(tape.request.rows.size());
  const int64_t k = model.config().hidden_size;
  float* rows = tape.hidden_rows.ensure(static_cast<size_t>(m * k));
  const float* from = hidden.data_ptr<float>();
  for (int64_t i = 0; i < m; ++i) {
    std::copy_n(from + tape.request.rows[static_cast<size_t>(i)] * k, k, rows + i * k);
  }
  tape.scores = {at::empty({m}, at::kFloat), at::empty({m}, at::kFloat)};
  kernels::linear_logprob({.hidden = rows,
                           .hidden_stride = k,
                           .head = model.head().packed(),
                           .targets = tape.request.targets.data(),
                           .rows = m,
                           .inverse_temperature = tape.inverse_temperature,
                           .logprob = tape.scores.logprobs.data_ptr<float>(),
                           .entropy = tape.scores.entropy.data_ptr<float>(),
                           .max = tape.max.ensure(static_cast<size_t>(m)),
                           .log_sum = tape.log_sum.ensure(static_cast<size_t>(m))});
  return tape.scores;
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

void score_backward(CausalLM& model, ScoringTape& tape, const at::Tensor& dlogprobs,
                    const at::Tensor& dentropy) {
  const int64_t m = static_cast<int64_t>(tape.request.rows.size());
  const int64_t k = model.config().hidden_size;
  const at::Tensor dlogprob = dlogprobs.to(at::kFloat).contiguous();
  const at::Tensor dh = dentropy.defined() ? dentropy.to(at::kFloat).contiguous() : at::Tensor();
  TEMPER_CHECK(dlogprob.numel() == m && (!dh.defined() || dh.numel() == m),
               "[score_backward] expected ", m, " gradients, one a scored token");
  float* drows = tape.dhidden_rows.ensure(static_cast<size_t>(m * k));
  const Parameter& head = model.head();
  kernels::linear_logprob_backward({.forward = {.hidden = tape.hidden_rows.data(),
                                                .hidden_stride = k,
                                                .head = head.packed(),
                                                .targets = tape.request.targets.data(),
                                                .rows = m,
                                                .inverse_temperature = tape.inverse_temperature,
                                                .logprob = tape.scores.logprobs.data_ptr<float>(),
                                                .entropy = tape.scores.entropy.data_ptr<float>(),
                                                .max = tape.max.data(),
                                                .log_sum = tape.log_sum.data()},
                                    .dlogprob = dlogprob.data_ptr<float>(),
                                    .dentropy = dh.defined() ? dh.data_ptr<float>() : nullptr,
                                    .dhidden = drows,
                                    .dhidden_stride = k,
                                    .dweight = head.grad_data()});
  at::Tensor dhidden = at::zeros({tape.forward.batch.rows(), k}, at::kFloat);
  float* to = dhidden.data_ptr<float>();
  for (int64_t i = 0; i < m; ++i) {
    float* row = to + tape.request.rows[static_cast<size_t>(i)] * k;
    for (int64_t j = 0; j < k; ++j) row[j] += drows[i * k + j];
  }
  model.backward(tape.forward, dhidden);
}

}  // namespace temper
