// A model's adapter: how it comes, goes, and is written.
#include "model_weights.h"
#include "temper/core/error.h"
#include "temper/nn/adapter.h"

namespace temper {

bool CausalLM::trainable() const {
  return trainable_ == Trainable::kYes || (adapter_ != nullptr && adapter_->trainable());
}

LinearAdapter* CausalLM::adapter_on(const Parameter& weight) const {
  return adapter_applied() ? adapter_->on(weight) : nullptr;
}

void CausalLM::take_adapter(std::unique_ptr<Adapter> adapter) {
  adapter_ = std::move(adapter);
  adapter_on_ = true;
}

bool CausalLM::drops_out() const {
  return adapter_applied() && adapter_->trainable() && adapter_->config().dropout > 0;
}

CausalLM::DropoutScope::~DropoutScope() {
  if (adapter != nullptr) adapter->set_dropout({});
}

CausalLM::DropoutScope CausalLM::drop_out_rows(const ForwardTape& tape) const {
  if (!drops_out()) return {nullptr};
  adapter_->set_dropout({adapter_->config().dropout, dropout_seed_, dropout_step_, tape.texts});
  return {adapter_.get()};
}

void CausalLM::set_dropout_step(uint64_t seed, int64_t step) {
  dropout_seed_ = seed;
  dropout_step_ = step;
}

namespace {

void check_free(const CausalLM& model) {
  TEMPER_CHECK(model.adapter() == nullptr, "[adapter] the model has one already: merge it first");
  TEMPER_CHECK(!model.trainable(),
               "[adapter] the model's own weights are trained: load it as frozen");
}

}  // namespace

void CausalLM::add_adapter(const AdapterConfig& config, uint64_t seed) {
  check_free(*this);
  take_adapter(std::make_unique<Adapter>(config, params_, seed));
}

void CausalLM::load_adapter(const std::filesystem::path& folder, Trainable trainable) {
  check_free(*this);
  take_adapter(std::make_unique<Adapter>(open_peft_adapter(folder), params_, trainable));
}

void CausalLM::save_adapter(const std::filesystem::path& folder) const {
  TEMPER_CHECK(adapter_ != nullptr, "[adapter] the model has none to save");
  adapter_->save(folder);
}

void CausalLM::merge_adapter() {
  TEMPER_CHECK(adapter_ != nullptr, "[adapter] the model has none to merge");
  TEMPER_CHECK(dtype_ == WeightDType::kFloat32 && !mapped_, "[adapter] the model's weights are ",
               mapped_ ? "a mapped file" : weight_dtype_name(dtype_),
               ": an adapter is merged in place into float32 weights alone. Save the model: that ",
               "writes it merged");
  for (const auto& p : params_) {
    LinearAdapter* adapter = adapter_->on(*p);
    if (adapter == nullptr) continue;
    std::vector<std::vector<float>> merged;  // All before the weights that they are of change.
    for (const ParameterPart& part : p->parts) {
      std::vector<float>& rows = merged.emplace_back(static_cast<size_t>(part.rows * p->k));
      read_part(*p, part, rows.data());
      adapter->merge(part, rows.data());
    }
    for (size_t i = 0; i < merged.size(); ++i) p->set_part(p->parts[i], merged[i].data());
  }
  adapter_.reset();
}

std::unique_ptr<CausalLM> CausalLM::without_adapter() const {
  std::unique_ptr<CausalLM> base(new CausalLM());
  base->config_ = config_;
  base->dtype_ = dtype_;
  base->parts_ = parts_;
  base->mapped_ = mapped_;
  base->work_ = work_;
  base->declare();
  for (size_t i = 0; i < params_.size(); ++i) {
    Parameter& to = *base->params_[i];
    const Parameter& from = *params_[i];
    to.value = from.value;  // Handles of the same memory.
    to.half = from.half;
    to.int8 = from.int8;
    to.scales = from.scales;
  }
  return base;
}

std::vector<WriteTensor> CausalLM::write_tensors() const {
  std::vector<WriteTensor> out;
  for (const auto& p : params_) {
    TEMPER_CHECK(p->value.defined() || adapter_ != nullptr, "[save] ", p->name,
                 " is frozen and keeps no float32 values; save the policy instead");
    LinearAdapter* adapter = adapter_ == nullptr ? nullptr : adapter_->on(*p);
    for (const auto& part : p->parts) {
      std::vector<int64_t> shape{part.rows};
      if (p->matrix) shape.push_back(p->k);
      out.push_back({part.name, shape, [param = p.get(), part, adapter](std::span<float> rows) {
                       read_part(*param, part, rows.data());
                       if (adapter != nullptr) adapter->merge(part, rows.data());
                     }});
    }
  }
  return out;
}

}  // namespace temper
