#include <algorithm>

#include "temper/core/error.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/swiglu.h"
#include "temper/nn/adapter.h"
#include "temper/nn/causal_lm.h"
#include "temper/nn/strided.h"

namespace temper {
namespace {

/// dW += dy^T x and db += sum dy for a layer's weight, if it is trained.
void weight_gradient(const float* dy, const float* x, const Parameter& w, const Parameter* bias,
                     int64_t rows) {
  if (!w.grad.defined()) return;
  kernels::linear_backward_weight({.dy = dy,
                                   .dy_stride = w.n,
                                   .x = x,
                                   .x_stride = w.k,
                                   .dweight = w.grad_data(),
                                   .dbias = bias == nullptr ? nullptr : bias->grad_data(),
                                   .rows = rows,
                                   .n = w.n,
                                   .k = w.k,
                                   .product = w.product});
}

void input_gradient(const float* dy, const Parameter& w, float* dx, int64_t rows) {
  kernels::linear_backward_input(
      {.dy = dy, .dy_stride = w.n, .weight = w.packed(), .dx = dx, .dx_stride = w.k, .rows = rows});
}

/// dx += the norm's input gradient; the norm's weight gradient is added to.
void norm_gradient(const float* dy, const float* x, const Parameter& w, const float* rstd,
                   float* dx, int64_t rows) {
  kernels::rms_norm_backward({dy, x, w.data(), rstd, dx, true, w.grad_data(), rows, w.n});
}

}  // namespace

/// Gradients of a projection's weights and of its adapter, and dx, which may take x's place.
void CausalLM::project_backward(const Parameter& weight, const Parameter* bias, const float* dy,
                                const float* x, float* dx, int64_t rows) const {
  if (LinearAdapter* adapter = adapter_on(weight)) return adapter->backward({x, dy, dx, rows});
  weight_gradient(dy, x, weight, bias, rows);
  input_gradient(dy, weight, dx, rows);
}

void CausalLM::mlp_backward(int64_t layer, int64_t rows, LayerTape& t, float* dx) {
  const auto& c = config_;
  const Layer& l = layers_[static_cast<size_t>(layer)];
  const size_t n = static_cast<size_t>(rows);
  const size_t inner = static_cast<size_t>(c.intermediate_size);
  float* y = work_->wide.ensure(n * inner);
  kernels::swiglu(t.gate_up.data(), y, rows, c.intermediate_size);
  float* dy = y;  // y is used up then.
  project_backward(*l.down, l.down_bias, dx, y, dy, rows);
  float* dgate_up = work_->b.ensure(n * 2 * inner);
  kernels::swiglu_backward(dy, t.gate_up.data(), dgate_up, rows, c.intermediate_size);
  float* h = work_->h.ensure(n * static_cast<size_t>(c.hidden_size));
  kernels::rms_norm({t.x_mid.data(), l.norm_mid->data(), h, nullptr, rows, c.hidden_size,
                     static_cast<float>(c.rms_eps)});
  project_backward(*l.gate_up, l.gate_up_bias, dgate_up, h, h, rows);
  norm_gradient(h, t.x_mid.data(), *l.norm_mid, t.rstd_mid.data(), dx, rows);
}

void CausalLM::qkv_backward(int64_t layer, const ForwardTape& tape, LayerTape& t) {
  const auto& c = config_;
  const Layer& l = layers_[static_cast<size_t>(layer)];
  const int64_t rows = tape.batch.rows();
  const int64_t q_width = c.heads * c.head_dim;
  const int64_t kv_width = c.kv_heads * c.head_dim;
  const int64_t width = q_width + 2 * kv_width;
  float* dqkv = work_->dqkv.data();
  kernels::rope(dqkv, width, tape.batch.positions, c.heads, work_->rope, true);
  kernels::rope(dqkv + q_width, width, tape.batch.positions, c.kv_heads, work_->rope, true);
  if (l.q_norm == nullptr) return;
  const auto norm = [&](Parameter& w, int64_t heads, int64_t at, FloatBuffer& raw,
                        FloatBuffer& rstd) {
    const int64_t columns = heads * c.head_dim;
    float* d = work_->a.ensure(static_cast<size_t>(rows * columns));
    copy_columns(dqkv + at, width, d, columns, rows, columns);
    kernels::rms_norm_backward(
        {d, raw.data(), w.data(), rstd.data(), d, false, w.grad_data(), rows * heads, c.head_dim});
    copy_columns(d, columns, dqkv + at, width, rows, columns);
  };
  norm(*l.q_norm, c.heads, 0, t.q_raw, t.rstd_q);
  norm(*l.k_norm, c.kv_heads, q_width, t.k_raw, t.rstd_k);
}

void CausalLM::layer_backward(int64_t layer, const ForwardTape& tape, LayerTape& t, float* dx) {
  const auto& c = config_;
  const Layer& l = layers_[static_cast<size_t>(layer)];
  const int64_t rows = tape.batch.rows();
  const size_t n = static_cast<size_t>(rows);
  const int64_t q_width = c.heads * c.head_dim;
  const int64_t kv_width = c.kv_heads * c.head_dim;
  const size_t width = static_cast<size_t>(q_width + 2 * kv_width);
  mlp_backward(layer, rows, t, dx);
  float* dattention = work_->a.ensure(n * static_cast<size_t>(q_width));
  project_backward(*l.o, l.o_bias, dx, t.attention.data(), dattention, rows);
  float* dqkv = work_->dqkv.ensure(n * width);
  std::fill_n(dqkv, n * width, 0.0f);
  kernels::TreeAttentionBackwardArgs a{};
  a.forward = attention_args(tape.plan, layer, t, nullptr);
  a.dout = dattention;
  a.dout_stride = q_width;
  a.dq = dqkv;
  a.dq_stride = static_cast<int64_t>(width);
  a.dk = dqkv + q_width;
  a.dv = dqkv + q_width + kv_width;
  a.dkv_stride = static_cast<int64_t>(width);
  kernels::tree_attention_backward(a);
  qkv_backward(layer, tape, t);
  float* h = work_->h.ensure(n * static_cast<size_t>(c.hidden_size));
  kernels::rms_norm({t.x.data(), l.norm_in->data(), h, nullptr, rows, c.hidden_size,
                     static_cast<float>(c.rms_eps)});
  project_backward(*l.qkv, l.qkv_bias, dqkv, h, h, rows);
  norm_gradient(h, t.x.data(), *l.norm_in, t.rstd_in.data(), dx, rows);
}

void CausalLM::backward(ForwardTape& tape, const at::Tensor& dhidden) {
  TEMPER_CHECK(trainable(), "[backward] the model is frozen");
  TEMPER_CHECK(adapter_ == nullptr || adapter_on_, "[backward] the model's adapter is off");
  const auto dropout = drop_out_rows(tape);
  const int64_t rows = tape.batch.rows();
  const int64_t hidden = config_.hidden_size;
  TEMPER_CHECK(dhidden.is_contiguous() && dhidden.scalar_type() == at::kFloat &&
                   dhidden.numel() == rows * hidden,
               "[backward] dhidden must be contiguous float32 [", rows, ", ", hidden, "]");
  const size_t floats = static_cast<size_t>(rows * hidden);
  float* dx = work_->dx.ensure(floats);
  kernels::rms_norm_backward({dhidden.data_ptr<float>(), tape.last.data(), final_norm_->data(),
                              tape.rstd_last.data(), dx, false, final_norm_->grad_data(), rows,
                              hidden});
  for (int64_t layer = config_.layers; layer-- > 0;) {
    LayerTape& t = tape.layers[static_cast<size_t>(layer)];
    if (tape.checkpoint) {
      std::copy_n(t.x.data(), floats, work_->layer.x.ensure(floats));
      layer_forward(layer, tape.batch, tape.plan, nullptr, work_->layer, work_->out.ensure(floats));
      layer_backward(layer, tape, work_->layer, dx);
    } else {
      layer_backward(layer, tape, t, dx);
    }
  }
  if (!embed_->grad.defined()) return;
  for (int64_t r = 0; r < rows; ++r) {
    auto& row = embed_grad_[tape.batch.ids[static_cast<size_t>(r)]];
    row.resize(static_cast<size_t>(hidden));
    for (int64_t i = 0; i < hidden; ++i) row[static_cast<size_t>(i)] += dx[r * hidden + i];
  }
}

}  // namespace temper
