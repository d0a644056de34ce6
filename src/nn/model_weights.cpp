#include "model_weights.h"

#include <map>
#include <numeric>
#include <utility>

#include "temper/core/error.h"
#include "temper/kernels/embedding.h"
#include "temper/nn/adapter.h"

namespace temper {
namespace {

class ModelWeights : public WeightSource {
 public:
  explicit ModelWeights(const CausalLM& model) : adapter_(model.adapter()) {
    for (const auto& p : model.parameters()) {
      for (const auto& part : p->parts) parts_[part.name] = {p.get(), &part};
    }
  }
  std::vector<std::string> names() const override {
    std::vector<std::string> out;
    for (const auto& [name, unused] : parts_) out.push_back(name);
    return out;
  }
  bool has(std::string_view name) const override { return parts_.contains(name); }
  std::vector<int64_t> shape(std::string_view name) const override {
    const auto [p, part] = at(name);
    return p->matrix ? std::vector<int64_t>{part->rows, p->k} : std::vector<int64_t>{part->rows};
  }
  void read_float(std::string_view name, std::span<float> out) const override {
    const auto [p, part] = at(name);
    TEMPER_CHECK(std::ssize(out) == part->rows * p->k, "[weights] ", name, " has ",
                 part->rows * p->k, " elements, not ", out.size());
    read_part(*p, *part, out.data());
    LinearAdapter* adapter = adapter_ == nullptr ? nullptr : adapter_->on(*p);
    if (adapter != nullptr) adapter->merge(*part, out.data());
  }

 private:
  using Place = std::pair<const Parameter*, const ParameterPart*>;
  const Place& at(std::string_view name) const {
    const auto found = parts_.find(name);
    TEMPER_CHECK(found != parts_.end(), "[weights] the model has no tensor ", name);
    return found->second;
  }
  const Adapter* adapter_;
  std::map<std::string, Place, std::less<>> parts_;
};

class PrefixedWeights : public WeightSource {
 public:
  PrefixedWeights(std::shared_ptr<const WeightSource> weights, std::string prefix)
      : weights_(std::move(weights)), prefix_(std::move(prefix)) {}
  std::vector<std::string> names() const override {
    std::vector<std::string> out;
    for (const std::string& name : weights_->names()) {
      if (name.starts_with(prefix_)) out.push_back(name.substr(prefix_.size()));
    }
    return out;
  }
  bool has(std::string_view name) const override { return weights_->has(full(name)); }
  std::vector<int64_t> shape(std::string_view name) const override {
    return weights_->shape(full(name));
  }
  void read_float(std::string_view name, std::span<float> out) const override {
    weights_->read_float(full(name), out);
  }

 private:
  std::string full(std::string_view name) const { return prefix_ + std::string(name); }
  std::shared_ptr<const WeightSource> weights_;
  std::string prefix_;
};

}  // namespace

void read_part(const Parameter& p, const ParameterPart& part, float* rows) {
  if (p.value.defined()) return p.get_part(part, p.value, rows);
  std::vector<int32_t> ids(static_cast<size_t>(part.rows));
  std::iota(ids.begin(), ids.end(), static_cast<int32_t>(part.row_begin));
  kernels::embedding(p.packed(), ids, rows);  // It reads rows of any panels.
}

std::shared_ptr<const WeightSource> weights_of(const CausalLM& model) {
  return std::make_shared<ModelWeights>(model);
}

std::shared_ptr<const WeightSource> without_prefix(std::shared_ptr<const WeightSource> weights,
                                                   std::string prefix) {
  return std::make_shared<PrefixedWeights>(std::move(weights), std::move(prefix));
}

}  // namespace temper
