#include "temper/nn/causal_lm.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include "load_blocks.h"
#include "temper/core/error.h"
#include "temper/nn/adapter.h"
#include "tensor_arena.h"

namespace temper {

const std::vector<std::string>& weight_dtype_names() {
  static const std::vector<std::string> names = {"float32", "bfloat16", "bfloat16_dot",
                                                 "float16", "int8",     "q4"};
  return names;
}

const char* weight_dtype_name(WeightDType dtype) {
  return weight_dtype_names()[static_cast<size_t>(dtype)].c_str();
}

WeightDType parse_weight_dtype(std::string_view name) {
  const auto& names = weight_dtype_names();
  const auto at = std::find(names.begin(), names.end(), name);
  TEMPER_CHECK(at != names.end(),
               "[weights] expected float32, bfloat16, bfloat16_dot, float16, int8 or q4, got \"",
               name, "\"");
  return static_cast<WeightDType>(at - names.begin());
}

CausalLM::CausalLM(const ModelSource& source, WeightDType dtype, Trainable trainable, LmParts parts)
    : config_(source.config), dtype_(dtype), trainable_(trainable), parts_(parts) {
  TEMPER_CHECK(!frozen_only(dtype) || trainable == Trainable::kNo, "[load] ",
               weight_dtype_name(dtype), " weights are for frozen models (under an adapter, ",
               "trainer.reference_weights, reward_model.weights): a model whose weights are ",
               "trained needs another trainer.weights");
  declare();
  load(*source.weights);
}

CausalLM::CausalLM() = default;
CausalLM::~CausalLM() = default;

Parameter* CausalLM::matrix(std::string name, std::vector<ParameterPart> parts, int64_t k) {
  auto p = std::make_unique<Parameter>();
  p->name = std::move(name);
  p->matrix = true;
  if (dtype_ == WeightDType::kBfloat16Dot) p->product = kernels::Product::kDot;
  p->k = k;
  for (const auto& part : parts) p->n = std::max(p->n, part.row_begin + part.rows);
  p->parts = std::move(parts);
  params_.push_back(std::move(p));
  return params_.back().get();
}

Parameter* CausalLM::vector(std::string name, std::vector<ParameterPart> parts) {
  Parameter* p = matrix(std::move(name), std::move(parts), 1);
  p->matrix = false;
  return p;
}

CausalLM::Layer CausalLM::declare_layer(int64_t index) {
  const auto& c = config_;
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const int64_t q = c.heads * c.head_dim;
  const int64_t kv = c.kv_heads * c.head_dim;
  const auto qkv_parts = [&](const std::string& kind) {
    return std::vector<ParameterPart>{{prefix + "self_attn.q_proj." + kind, 0, q},
                                      {prefix + "self_attn.k_proj." + kind, q, kv},
                                      {prefix + "self_attn.v_proj." + kind, q + kv, kv}};
  };
  const auto gate_parts = [&](const std::string& kind) {
    return std::vector<ParameterPart>{
        {prefix + "mlp.gate_proj." + kind, 0, c.intermediate_size},
        {prefix + "mlp.up_proj." + kind, c.intermediate_size, c.intermediate_size}};
  };
  const auto one = [&](const std::string& name, int64_t rows) {
    return std::vector<ParameterPart>{{prefix + name, 0, rows}};
  };
  Layer l{};
  const int64_t h = c.hidden_size;
  l.norm_in = vector(prefix + "input_layernorm", one("input_layernorm.weight", h));
  l.qkv = matrix(prefix + "qkv", qkv_parts("weight"), h);
  if (c.qkv_bias) l.qkv_bias = vector(prefix + "qkv_bias", qkv_parts("bias"));
  if (c.qk_norm) {
    l.q_norm = vector(prefix + "q_norm", one("self_attn.q_norm.weight", c.head_dim));
    l.k_norm = vector(prefix + "k_norm", one("self_attn.k_norm.weight", c.head_dim));
  }
  l.o = matrix(prefix + "o", one("self_attn.o_proj.weight", h), q);
  if (c.o_bias) l.o_bias = vector(prefix + "o_bias", one("self_attn.o_proj.bias", h));
  l.norm_mid =
      vector(prefix + "post_attention_layernorm", one("post_attention_layernorm.weight", h));
  l.gate_up = matrix(prefix + "gate_up", gate_parts("weight"), h);
  l.down = matrix(prefix + "down", one("mlp.down_proj.weight", h), c.intermediate_size);
  if (c.mlp_bias) {
    l.gate_up_bias = vector(prefix + "gate_up_bias", gate_parts("bias"));
    l.down_bias = vector(prefix + "down_bias", one("mlp.down_proj.bias", h));
  }
  return l;
}

void CausalLM::declare() {
  const auto& c = config_;
  embed_ = matrix("embed_tokens", {{"model.embed_tokens.weight", 0, c.vocab_size}}, c.hidden_size);
  for (int64_t i = 0; i < c.layers; ++i) layers_.push_back(declare_layer(i));
  final_norm_ = vector("norm", {{"model.norm.weight", 0, c.hidden_size}});
  tied_head_ = c.tied;
  if (!tied_head_ && parts_ == LmParts::kAll) {
    lm_head_ = matrix("lm_head", {{"lm_head.weight", 0, c.vocab_size}}, c.hidden_size);
  }
}

void CausalLM::check_shapes(const WeightSource& weights) const {
  for (const auto& p : params_) {
    for (const auto& part : p->parts) {
      TEMPER_CHECK(weights.has(part.name), "[load] the model has no tensor ", part.name);
      const std::vector<int64_t> expected =
          p->matrix ? std::vector<int64_t>{part.rows, p->k} : std::vector<int64_t>{part.rows};
      const auto shape = weights.shape(part.name);
      TEMPER_CHECK(shape == expected, "[load] ", part.name, " should have ", part.rows, " x ", p->k,
                   " elements by the config, and has another shape");
    }
  }
}

namespace {

/// What holds the rounded copy of a matrix.
at::ScalarType copy_type(WeightDType dtype) {
  if (frozen_only(dtype)) return at::kChar;
  return dtype == WeightDType::kFloat16 ? at::kHalf : at::kBFloat16;
}

/// Of what these values cannot be rounded to.
void check_range(const std::string& name, std::span<const float> values, WeightDType dtype) {
  const bool f16 = dtype == WeightDType::kFloat16, blocks = dtype == WeightDType::kQ4;
  if (!f16 && !frozen_only(dtype)) return;
  for (const float v : values) {
    const bool small = std::abs(v) < 65520;
    const bool held = f16 ? !std::isfinite(v) || small : std::isfinite(v) && (small || !blocks);
    TEMPER_CHECK(held, "[load] ", name, " holds ", v, ", which ", weight_dtype_name(dtype),
                 " cannot; use another weight type");
  }
}

}  // namespace

void CausalLM::allocate() {
  const bool trains = trainable_ == Trainable::kYes;
  const bool int8 = dtype_ == WeightDType::kInt8;
  const auto rounded = [&](const Parameter& p) {
    return p.matrix && dtype_ != WeightDType::kFloat32;
  };
  // Elements of each kind. A frozen rounded matrix has float32 values only while it is loaded.
  const auto value = [&](const Parameter& p) { return trains || !rounded(p) ? p.elements() : 0; };
  const bool blocks = dtype_ == WeightDType::kQ4;  // Their sizes depend on the file.
  const auto copy = [&](const Parameter& p) { return rounded(p) && !blocks ? p.elements() : 0; };
  const auto scale = [&](const Parameter& p) {
    return int8 && rounded(p) ? kernels::scale_elements(p.n, p.k) : 0;
  };
  const auto grad = [&](const Parameter& p) { return trains ? p.elements() : 0; };
  const auto arena = [&](at::ScalarType type, const auto& elements) {
    size_t bytes = 0;
    for (const auto& p : params_) bytes += TensorArena::bytes_of(elements(*p), type);
    return TensorArena(bytes);
  };
  TensorArena values = arena(at::kFloat, value);
  TensorArena copies = arena(copy_type(dtype_), copy);
  TensorArena scales = arena(at::kFloat, scale);
  TensorArena grads = arena(at::kFloat, grad);
  const auto give = [](TensorArena& from, int64_t elements, at::ScalarType type, at::Tensor& to) {
    if (elements > 0) to = from.zeros(elements, type);
  };
  for (auto& p : params_) {
    give(values, value(*p), at::kFloat, p->value);
    give(copies, copy(*p), copy_type(dtype_), int8 ? p->int8 : p->half);
    give(scales, scale(*p), at::kFloat, p->scales);
    give(grads, grad(*p), at::kFloat, p->grad);
  }
}

void CausalLM::load(const WeightSource& weights) {
  check_shapes(weights);  // Before memory is asked for by the sizes that a file claims.
  allocate();
  std::vector<float> rows;
  for (auto& p : params_) {
    if (p->matrix && dtype_ == WeightDType::kQ4) {
      p->set_blocks(blocks_of(*p, weights));
      continue;
    }
    const bool keeps_value = p->value.defined();
    if (!keeps_value) p->value = float_zeros(p->elements());
    for (const auto& part : p->parts) {
      rows.resize(static_cast<size_t>(part.rows * p->k));
      weights.read_float(part.name, rows);
      if (p->matrix) check_range(part.name, rows, dtype_);
      p->set_part(part, rows.data());
    }
    p->refresh_half();
    if (!keeps_value) p->value = at::Tensor();
  }
}

std::unique_ptr<CausalLM> CausalLM::frozen_copy(const CausalLM& other) {
  return frozen_copy(other, other.dtype_);
}

std::unique_ptr<CausalLM> CausalLM::frozen_copy(const CausalLM& other, WeightDType dtype) {
  std::unique_ptr<CausalLM> copy(new CausalLM());
  copy->config_ = other.config_;
  copy->dtype_ = dtype;
  copy->parts_ = other.parts_;
  copy->declare();
  copy->allocate();
  copy->copy_weights(other);
  return copy;
}

void CausalLM::copy_weights(const CausalLM& other) {
  TEMPER_CHECK(params_.size() == other.params_.size(), "[copy] the models differ in architecture");
  TEMPER_CHECK(other.adapter_ == nullptr, "[copy] the model has an adapter: merge it, or take the ",
               "model without it (without_adapter)");
  const bool same_type =
      dtype_ == other.dtype_ || (!frozen_only(dtype_) && !frozen_only(other.dtype_) &&
                                 copy_type(dtype_) == copy_type(other.dtype_));
  TEMPER_CHECK(same_type || dtype_ != WeightDType::kQ4, "[copy] q4 weights are rounded from a ",
               "model's files, not from a model: load it");
  for (size_t i = 0; i < params_.size(); ++i) {
    Parameter& to = *params_[i];
    const Parameter& from = *other.params_[i];
    if (same_type && from.int8.defined()) {
      to.int8 = from.int8.clone();
      to.scales = from.scales.clone();
    } else if (same_type && to.half.defined() && from.half.defined()) {
      to.half.copy_(from.half);
    } else {
      TEMPER_CHECK(from.value.defined(), "[copy] ", from.name, " is frozen in ",
                   weight_dtype_name(other.dtype_), ": it cannot be copied in ",
                   weight_dtype_name(dtype_));
      if (to.value.defined()) {
        to.value.copy_(from.value);
      } else {
        check_range(from.name, {from.data(), static_cast<size_t>(from.elements())}, dtype_);
        to.round_from(from.data());
      }
    }
  }
}

Parameter& CausalLM::head() const {
  if (tied_head_) return *embed_;
  TEMPER_CHECK(lm_head_ != nullptr, "[head] the model was loaded as a backbone, without lm_head");
  return *lm_head_;
}

void CausalLM::zero_gradients() {
  for (Parameter* p : parameter_list()) {
    if (p->grad.defined()) p->grad.zero_();
  }
  embed_grad_.clear();
}

void CausalLM::finish_gradients() {
  float* grad = embed_->grad_data();
  const int64_t k = embed_->k;
  for (const auto& [id, row] : embed_grad_) {
    float* to = grad + id / kernels::kPanel * kernels::panel_depth(k) * kernels::kPanel +
                id % kernels::kPanel;
    for (int64_t i = 0; i < k; ++i) to[i * kernels::kPanel] += row[static_cast<size_t>(i)];
  }
  embed_grad_.clear();
}

std::vector<Parameter*> CausalLM::parameter_list() const {
  if (adapter_) return adapter_->parameters();
  std::vector<Parameter*> out;
  for (const auto& p : params_) out.push_back(p.get());
  return out;
}

size_t CausalLM::weight_bytes() const {
  size_t total = adapter_ ? adapter_->bytes() : 0;
  for (const auto& p : params_) total += p->bytes();
  return total;
}

}  // namespace temper
