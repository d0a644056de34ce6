#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>

#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/kernels/embedding.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/swiglu.h"
#include "temper/nn/adapter.h"
#include "temper/nn/causal_lm.h"
#include "temper/nn/strided.h"

namespace temper {
namespace {

kernels::LinearArgs linear_args(const float* x, const Parameter& w, const Parameter* bias, float* y,
                                int64_t rows) {
  return {.x = x,
          .x_stride = w.k,
          .weight = w.packed(),
          .bias = bias == nullptr ? nullptr : bias->data(),
          .y = y,
          .y_stride = w.n,
          .rows = rows};
}

}  // namespace

/// y = or += x W^T (+ bias), adapted where the weight has an adapter.
void CausalLM::project(const Parameter& weight, const Parameter* bias, const float* x, float* y,
                       int64_t rows, bool add) const {
  auto args = linear_args(x, weight, bias, y, rows);
  args.add = add;
  LinearAdapter* adapter = adapter_on(weight);
  adapter != nullptr ? adapter->forward(args) : kernels::linear(args);
}

void CausalLM::embed(const TokenBatch& batch, float* x) const {
  kernels::embedding(embed_->packed(), batch.ids, x);
}

kernels::TreeAttentionArgs CausalLM::attention_args(const AttentionPlan& plan, int64_t layer,
                                                    LayerTape& t, KvStore* kv) const {
  const auto& c = config_;
  const int64_t q_width = c.heads * c.head_dim;
  const int64_t kv_width = c.kv_heads * c.head_dim;
  const int64_t stride = q_width + 2 * kv_width;
  kernels::TreeAttentionArgs a{};
  a.q = t.qkv.data();
  a.q_stride = stride;
  a.k = kv != nullptr ? kv->keys(layer) : t.qkv.data() + q_width;
  a.v = kv != nullptr ? kv->values(layer) : t.qkv.data() + q_width + kv_width;
  a.kv_stride = kv != nullptr ? kv_width : stride;
  a.out = t.attention.data();
  a.out_stride = q_width;
  a.lse = t.lse.data();
  a.spans = plan.spans;
  a.queries = plan.queries;
  a.heads = static_cast<int>(c.heads);
  a.kv_heads = static_cast<int>(c.kv_heads);
  a.head_dim = static_cast<int>(c.head_dim);
  a.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  const bool slides = c.sliding_window && c.sliding_layers[static_cast<size_t>(layer)];
  a.window = slides ? *c.sliding_window : 0;
  return a;
}

void CausalLM::qkv_forward(int64_t layer, const TokenBatch& batch, LayerTape& t) {
  const auto& c = config_;
  const Layer& l = layers_[static_cast<size_t>(layer)];
  const int64_t rows = batch.rows();
  const size_t n = static_cast<size_t>(rows);
  const int64_t q_width = c.heads * c.head_dim;
  const int64_t kv_width = c.kv_heads * c.head_dim;
  const int64_t width = q_width + 2 * kv_width;
  float* h = work_->h.ensure(n * static_cast<size_t>(c.hidden_size));
  kernels::rms_norm({t.x.data(), l.norm_in->data(), h, t.rstd_in.ensure(n), rows, c.hidden_size,
                     static_cast<float>(c.rms_eps)});
  float* qkv = t.qkv.ensure(n * static_cast<size_t>(width));
  project(*l.qkv, l.qkv_bias, h, qkv, rows, false);
  if (l.q_norm != nullptr) {
    const auto norm = [&](Parameter& w, int64_t heads, int64_t at, FloatBuffer& raw,
                          FloatBuffer& rstd) {
      const int64_t columns = heads * c.head_dim;
      float* from = raw.ensure(n * static_cast<size_t>(columns));
      float* normed = work_->a.ensure(n * static_cast<size_t>(columns));
      copy_columns(qkv + at, width, from, columns, rows, columns);
      kernels::rms_norm({from, w.data(), normed, rstd.ensure(n * static_cast<size_t>(heads)),
                         rows * heads, c.head_dim, static_cast<float>(c.rms_eps)});
      copy_columns(normed, columns, qkv + at, width, rows, columns);
    };
    norm(*l.q_norm, c.heads, 0, t.q_raw, t.rstd_q);
    norm(*l.k_norm, c.kv_heads, q_width, t.k_raw, t.rstd_k);
  }
  kernels::rope(qkv, width, batch.positions, c.heads, work_->rope, false);
  kernels::rope(qkv + q_width, width, batch.positions, c.kv_heads, work_->rope, false);
}

void CausalLM::mlp_forward(int64_t layer, int64_t rows, LayerTape& t, float* out) {
  const auto& c = config_;
  const Layer& l = layers_[static_cast<size_t>(layer)];
  const size_t n = static_cast<size_t>(rows);
  const size_t hidden = static_cast<size_t>(c.hidden_size);
  float* h = work_->h.ensure(n * hidden);
  kernels::rms_norm({t.x_mid.data(), l.norm_mid->data(), h, t.rstd_mid.ensure(n), rows,
                     c.hidden_size, static_cast<float>(c.rms_eps)});
  float* gate_up = t.gate_up.ensure(n * static_cast<size_t>(2 * c.intermediate_size));
  float* y = work_->wide.ensure(n * static_cast<size_t>(c.intermediate_size));
  if (adapter_on(*l.gate_up) != nullptr) {
    project(*l.gate_up, l.gate_up_bias, h, gate_up, rows, false);
    kernels::swiglu(gate_up, y, rows, c.intermediate_size);
  } else {
    auto gated = linear_args(h, *l.gate_up, l.gate_up_bias, gate_up, rows);
    gated.swiglu = y;
    kernels::linear(gated);
  }
  std::copy_n(t.x_mid.data(), n * hidden, out);
  project(*l.down, l.down_bias, y, out, rows, true);
}

void CausalLM::layer_forward(int64_t layer, const TokenBatch& batch, const AttentionPlan& plan,
                             KvStore* kv, LayerTape& t, float* out) {
  const auto& c = config_;
  const Layer& l = layers_[static_cast<size_t>(layer)];
  const int64_t rows = batch.rows();
  const size_t n = static_cast<size_t>(rows);
  const int64_t q_width = c.heads * c.head_dim;
  const int64_t kv_width = c.kv_heads * c.head_dim;
  qkv_forward(layer, batch, t);
  if (kv != nullptr) {
    const int64_t width = q_width + 2 * kv_width;
    for (int64_t r = 0; r < rows; ++r) {
      const float* from = t.qkv.data() + r * width + q_width;
      const int64_t slot = plan.slots[static_cast<size_t>(r)];
      std::copy_n(from, kv_width, kv->keys(layer) + slot * kv_width);
      std::copy_n(from + kv_width, kv_width, kv->values(layer) + slot * kv_width);
    }
  }
  t.attention.ensure(n * static_cast<size_t>(q_width));
  t.lse.ensure(n * static_cast<size_t>(c.heads));
  kernels::tree_attention(attention_args(plan, layer, t, kv));
  float* x_mid = t.x_mid.ensure(n * static_cast<size_t>(c.hidden_size));
  std::copy_n(t.x.data(), n * static_cast<size_t>(c.hidden_size), x_mid);
  project(*l.o, l.o_bias, t.attention.data(), x_mid, rows, true);
  mlp_forward(layer, rows, t, out);
}

at::Tensor CausalLM::forward(const TokenBatch& batch, KvStore* kv) {
  check_batch(batch, kv);
  ensure_rope(batch.positions);
  const AttentionPlan plan = make_plan(batch, kv);
  const size_t floats = batch.ids.size() * static_cast<size_t>(config_.hidden_size);
  LayerTape& t = work_->layer;
  embed(batch, t.x.ensure(floats));
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    layer_forward(layer, batch, plan, kv, t, t.x.data());
  }
  float* hidden = hidden_.ensure(floats);
  kernels::rms_norm({t.x.data(), final_norm_->data(), hidden, nullptr, batch.rows(),
                     config_.hidden_size, static_cast<float>(config_.rms_eps)});
  return at::from_blob(hidden, {batch.rows(), config_.hidden_size}, at::kFloat);
}

at::Tensor CausalLM::forward_train(const TokenBatch& batch, ForwardTape& tape) {
  check_batch(batch, nullptr);
  ensure_rope(batch.positions);
  tape.batch = batch;
  tape.plan = make_plan(batch, nullptr);
  tape.texts = drops_out() ? text_hashes(batch) : std::vector<uint64_t>();
  const auto dropout = drop_out_rows(tape);
  tape.layers.resize(static_cast<size_t>(config_.layers));
  const size_t floats = batch.ids.size() * static_cast<size_t>(config_.hidden_size);
  embed(batch, tape.layers[0].x.ensure(floats));
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    LayerTape& t = tape.layers[static_cast<size_t>(layer)];
    const bool last = layer + 1 == config_.layers;
    float* out = (last ? tape.last : tape.layers[static_cast<size_t>(layer + 1)].x).ensure(floats);
    if (tape.checkpoint) {
      std::copy_n(t.x.data(), floats, work_->layer.x.ensure(floats));
      layer_forward(layer, batch, tape.plan, nullptr, work_->layer, out);
    } else {
      layer_forward(layer, batch, tape.plan, nullptr, t, out);
    }
  }
  float* hidden = tape.hidden.ensure(floats);
  kernels::rms_norm({tape.last.data(), final_norm_->data(), hidden,
                     tape.rstd_last.ensure(batch.ids.size()), batch.rows(), config_.hidden_size,
                     static_cast<float>(config_.rms_eps)});
  return at::from_blob(hidden, {batch.rows(), config_.hidden_size}, at::kFloat);
}

}  // namespace temper
