#include <ATen/ops/empty.h>

#include <algorithm>

#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/nn/scalar_model.h"

namespace temper {
namespace {

std::unique_ptr<Parameter> vector_parameter(std::string name, int64_t n) {
  auto p = std::make_unique<Parameter>();
  p->name = std::move(name);
  p->n = n;
  p->value = float_zeros(n);
  p->grad = float_zeros(n);
  return p;
}

/// Rounds once, whatever the compiler does: a product of floats is exact in double.
float multiply_add(float sum, float a, float b) {
  return static_cast<float>(double{sum} + double{a} * double{b});
}

void check_rows(const at::Tensor& hidden, int64_t width, std::span<const int32_t> rows) {
  TEMPER_CHECK(hidden.dim() == 2 && hidden.size(1) == width && hidden.is_contiguous() &&
                   hidden.scalar_type() == at::kFloat,
               "[ScalarHead] hidden must be contiguous float32 [N, ", width, "]");
  for (const int32_t row : rows) {
    TEMPER_CHECK(row >= 0 && row < hidden.size(0), "[ScalarHead] row ", row, " is outside the ",
                 hidden.size(0), " hidden rows");
  }
}

}  // namespace

ScalarHead::ScalarHead(int64_t width, bool bias, std::string name)
    : weight_(vector_parameter(name, width)) {
  weight_->parts = {{"score.weight", 0, width}};
  if (!bias) return;
  bias_ = vector_parameter(name + "_bias", 1);
  bias_->parts = {{"score.bias", 0, 1}};
}

void ScalarHead::set(std::span<const float> weight, float bias) {
  TEMPER_CHECK(std::ssize(weight) == width(), "[ScalarHead] expected ", width(), " weights, got ",
               weight.size());
  std::copy(weight.begin(), weight.end(), weight_->data());
  if (bias_) *bias_->data() = bias;
}

std::span<const float> ScalarHead::weight() const {
  return {weight_->data(), static_cast<size_t>(width())};
}

float ScalarHead::bias() const { return bias_ ? *bias_->data() : 0.0f; }

at::Tensor ScalarHead::values(const at::Tensor& hidden, std::span<const int32_t> rows) const {
  check_rows(hidden, width(), rows);
  at::Tensor out = at::empty({std::ssize(rows)}, at::kFloat);
  float* to = out.data_ptr<float>();
  const float* from = hidden.const_data_ptr<float>();
  const float* w = weight_->data();
  const int64_t k = width();
  parallel_for(std::ssize(rows), 64, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      const float* row = from + rows[static_cast<size_t>(m)] * k;
      double sum = 0;
      for (int64_t i = 0; i < k; ++i) sum += double{row[i]} * double{w[i]};
      to[m] = static_cast<float>(sum + double{bias()});
    }
  });
  return out;
}

void ScalarHead::backward(const at::Tensor& hidden, std::span<const int32_t> rows,
                          const at::Tensor& dvalues, at::Tensor* dhidden) {
  check_rows(hidden, width(), rows);
  TEMPER_CHECK(dvalues.numel() == std::ssize(rows), "[ScalarHead] expected ", rows.size(),
               " gradients, one a value, got ", dvalues.numel());
  const at::Tensor d = dvalues.to(at::kFloat).contiguous();
  const float* dv = d.const_data_ptr<float>();
  const float* h = hidden.const_data_ptr<float>();
  const int64_t k = width();
  float* dw = weight_->grad_data();
  for (size_t m = 0; m < rows.size(); ++m) {
    const float* row = h + rows[m] * k;
    for (int64_t i = 0; i < k; ++i) dw[i] = multiply_add(dw[i], dv[m], row[i]);
    if (bias_) *bias_->grad_data() += dv[m];
  }
  if (dhidden == nullptr) return;
  check_rows(*dhidden, k, rows);
  float* dh = dhidden->data_ptr<float>();
  const float* w = weight_->data();
  for (size_t m = 0; m < rows.size(); ++m) {
    float* row = dh + rows[m] * k;
    for (int64_t i = 0; i < k; ++i) row[i] = multiply_add(row[i], dv[m], w[i]);
  }
}

void ScalarHead::zero_gradients() {
  for (Parameter* p : parameters()) p->grad.zero_();
}

std::vector<Parameter*> ScalarHead::parameters() const {
  std::vector<Parameter*> out{weight_.get()};
  if (bias_) out.push_back(bias_.get());
  return out;
}

}  // namespace temper
