#include "temper/nn/scalar_model.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "temper/core/error.h"

namespace temper {
namespace {

void check_rows(const TokenBatch& batch, std::span<const int32_t> rows) {
  for (const int32_t row : rows) {
    TEMPER_CHECK(row >= 0 && row < batch.rows(), "[values] row ", row, " is outside the batch of ",
                 batch.rows(), " tokens");
  }
}

/// [M, hidden]: the rows that the head reads, kept apart from memory that the next forward reuses.
at::Tensor gather(const at::Tensor& hidden, std::span<const int32_t> rows) {
  const int64_t k = hidden.size(1);
  at::Tensor out = at::empty({std::ssize(rows), k}, at::kFloat);
  const float* from = hidden.const_data_ptr<float>();
  float* to = out.data_ptr<float>();
  for (size_t m = 0; m < rows.size(); ++m) {
    std::copy_n(from + rows[m] * k, k, to + static_cast<int64_t>(m) * k);
  }
  return out;
}

std::vector<int32_t> all_rows(const at::Tensor& hidden) {
  std::vector<int32_t> rows(static_cast<size_t>(hidden.size(0)));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

}  // namespace

ScalarModel::ScalarModel(std::shared_ptr<CausalLM> backbone, ScalarHead head,
                         std::shared_ptr<const ModelSource> source)
    : backbone_(std::move(backbone)), head_(std::move(head)), source_(std::move(source)) {
  TEMPER_CHECK(backbone_ != nullptr && source_ != nullptr,
               "[ScalarModel] needs a backbone and the source of its files");
  TEMPER_CHECK(head_.width() == backbone_->config().hidden_size, "[ScalarModel] the head reads ",
               head_.width(), " columns and the backbone gives ", backbone_->config().hidden_size);
}

const ModelText& ScalarModel::text() const {
  if (!text_) text_ = std::make_shared<const ModelText>(*source_);
  return *text_;
}

size_t ScalarModel::bytes() const {
  size_t total = backbone_->weight_bytes();
  for (const Parameter* p : head_.parameters()) total += p->bytes();
  return total;
}

at::Tensor ScalarModel::values(const TokenBatch& batch, std::span<const int32_t> rows) {
  check_rows(batch, rows);
  return head_.values(backbone_->forward(batch), rows);
}

at::Tensor ScalarModel::values_train(const TokenBatch& batch, std::span<const int32_t> rows,
                                     ScalarTape& tape) {
  check_rows(batch, rows);
  tape.rows.assign(rows.begin(), rows.end());
  tape.hidden = gather(backbone_->trainable() ? backbone_->forward_train(batch, tape.forward)
                                              : backbone_->forward(batch),
                       rows);
  return head_.values(tape.hidden, all_rows(tape.hidden));
}

void ScalarModel::values_backward(ScalarTape& tape, const at::Tensor& dvalues) {
  TEMPER_CHECK(tape.hidden.defined(), "[values_backward] the tape holds no forward");
  const int64_t k = head_.width();
  if (!backbone_->trainable()) {
    head_.backward(tape.hidden, all_rows(tape.hidden), dvalues, nullptr);
    return;
  }
  at::Tensor drows = at::zeros({std::ssize(tape.rows), k}, at::kFloat);
  head_.backward(tape.hidden, all_rows(tape.hidden), dvalues, &drows);
  at::Tensor dhidden = at::zeros({tape.forward.batch.rows(), k}, at::kFloat);
  const float* from = drows.const_data_ptr<float>();
  for (size_t m = 0; m < tape.rows.size(); ++m, from += k) {
    float* to = dhidden.data_ptr<float>() + tape.rows[m] * k;
    for (int64_t i = 0; i < k; ++i) to[i] += from[i];
  }
  backbone_->backward(tape.forward, dhidden);
}

void ScalarModel::finish_gradients() {
  if (backbone_->trainable()) backbone_->finish_gradients();
}

void ScalarModel::zero_gradients() {
  backbone_->zero_gradients();
  head_.zero_gradients();
}

std::vector<Parameter*> ScalarModel::parameters() const {
  std::vector<Parameter*> out;
  if (backbone_->trainable()) out = backbone_->parameter_list();
  for (Parameter* p : head_.parameters()) out.push_back(p);
  return out;
}

}  // namespace temper
