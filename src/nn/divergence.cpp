#include "temper/nn/divergence.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "temper/core/error.h"
#include "temper/kernels/linear_divergence.h"

namespace temper {
namespace {

/// Copies rows of a [N, k] matrix together.
void gather_rows(const at::Tensor& from, std::span<const int32_t> rows, float* to) {
  const int64_t k = from.size(1);
  const float* data = from.const_data_ptr<float>();
  for (const int32_t row : rows) to = std::copy_n(data + row * k, k, to);
}

void check_rows(std::span<const int32_t> rows, const TokenBatch& batch) {
  for (const int32_t row : rows) {
    TEMPER_CHECK(row >= 0 && row < batch.rows(), "[divergence] row ", row,
                 " is outside the batch of ", batch.rows(), " tokens");
  }
}

void check_request(const CausalLM& student, const TokenBatch& batch, const DivergenceRequest& r) {
  const auto m = std::ssize(r.tokens.rows);
  const int64_t vocabulary = student.config().vocab_size;
  TEMPER_CHECK(r.teacher.head.n == vocabulary, "[divergence] the teacher's vocabulary has ",
               r.teacher.head.n, " ids and the student's ", vocabulary,
               ": distributions over different tokens cannot be compared");
  TEMPER_CHECK(std::ssize(r.tokens.targets) == m && r.teacher.hidden.size(0) == m, "[divergence] ",
               m, " rows, ", r.tokens.targets.size(), " targets and ", r.teacher.hidden.size(0),
               " rows of the teacher");
  TEMPER_CHECK(r.temperature > 0, "[divergence] temperature must be above 0, got ", r.temperature);
  check_rows(r.tokens.rows, batch);
  for (const int32_t id : r.tokens.targets) {
    TEMPER_CHECK(id >= 0 && id < vocabulary, "[divergence] targets must be in [0, ", vocabulary,
                 "), got ", id);
  }
}

DivergenceScores empty_scores(int64_t m) {
  const auto numbers = [m] { return at::empty({m}, at::kFloat); };
  return {numbers(), numbers(), numbers(), numbers()};
}

kernels::LinearDivergenceArgs head_args(const CausalLM& student, const DivergenceRequest& r,
                                        const float* rows, DivergenceScores& s) {
  const kernels::PackedWeight head = student.head().packed();
  return {.student = {rows, head.k, head},
          .teacher = {r.teacher.hidden.const_data_ptr<float>(), r.teacher.head.k, r.teacher.head},
          .rows = std::ssize(r.tokens.rows),
          .beta = static_cast<float>(r.beta),
          .inverse_temperature = 1.0f / static_cast<float>(r.temperature),
          .targets = r.tokens.targets.data(),
          .divergence = s.divergence.data_ptr<float>(),
          .logprob = s.logprobs.data_ptr<float>(),
          .entropy = s.entropy.data_ptr<float>(),
          .agree = s.agree.data_ptr<float>()};
}

/// d loss / d hidden of the batch from that of the scored rows, several of which may be one row.
at::Tensor scatter_rows(const float* drows, std::span<const int32_t> rows, int64_t n, int64_t k) {
  at::Tensor out = at::zeros({n, k}, at::kFloat);
  float* to = out.data_ptr<float>();
  for (const int32_t row : rows) {
    for (int64_t j = 0; j < k; ++j) to[row * k + j] += drows[j];
    drows += k;
  }
  return out;
}

at::Tensor coefficients(const at::Tensor& t, int64_t m) {
  TEMPER_CHECK(t.numel() == m, "[divergence_train] expected ", m, " gradients, one a row, got ",
               t.numel());
  return t.to(at::kFloat).contiguous();
}

}  // namespace

TeacherRows teacher_rows(CausalLM& teacher, const TokenBatch& batch,
                         std::span<const int32_t> rows) {
  check_rows(rows, batch);
  const at::Tensor hidden = teacher.forward(batch);
  TeacherRows out{at::empty({std::ssize(rows), hidden.size(1)}, at::kFloat),
                  teacher.head().packed()};
  gather_rows(hidden, rows, out.hidden.data_ptr<float>());
  return out;
}

DivergenceScores divergence(CausalLM& student, const TokenBatch& batch,
                            const DivergenceRequest& request) {
  check_request(student, batch, request);
  const auto m = std::ssize(request.tokens.rows);
  const at::Tensor hidden = student.forward(batch);
  at::Tensor rows = at::empty({m, hidden.size(1)}, at::kFloat);
  gather_rows(hidden, request.tokens.rows, rows.data_ptr<float>());
  DivergenceScores scores = empty_scores(m);
  kernels::linear_divergence(head_args(student, request, rows.const_data_ptr<float>(), scores));
  return scores;
}

DivergenceScores divergence_train(CausalLM& student, const TokenBatch& batch,
                                  const DivergenceRequest& request,
                                  const DivergenceGradients& gradients, DivergenceTape& tape) {
  check_request(student, batch, request);
  const auto m = std::ssize(request.tokens.rows);
  const int64_t k = student.config().hidden_size;
  const at::Tensor ddivergence = coefficients(gradients.divergence, m);
  const at::Tensor dlogprob =
      gradients.logprobs.defined() ? coefficients(gradients.logprobs, m) : at::Tensor();
  const at::Tensor hidden = student.forward_train(batch, tape.forward);
  float* rows = tape.hidden_rows.ensure(static_cast<size_t>(m * k));
  float* drows = tape.dhidden_rows.ensure(static_cast<size_t>(m * k));
  gather_rows(hidden, request.tokens.rows, rows);
  DivergenceScores scores = empty_scores(m);
  kernels::linear_divergence_train(
      {.forward = head_args(student, request, rows, scores),
       .ddivergence = ddivergence.const_data_ptr<float>(),
       .dlogprob = dlogprob.defined() ? dlogprob.const_data_ptr<float>() : nullptr,
       .dhidden = drows,
       .dhidden_stride = k,
       .dweight = student.head().grad_data()});
  student.backward(tape.forward, scatter_rows(drows, request.tokens.rows, batch.rows(), k));
  return scores;
}

}  // namespace temper
