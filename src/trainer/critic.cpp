#include "temper/trainer/critic.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/formats/safetensors.h"
#include "temper/nn/adapter.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kModelFolder = "value";
constexpr const char* kHeadFile = "value_head.safetensors";
constexpr const char* kOptimizerFile = "value_optimizer.safetensors";
constexpr const char* kStateFile = "value.json";

void save_head(const ScalarHead& head, const std::filesystem::path& path) {
  const auto bytes = [](const float* p, size_t n) {
    return std::span(reinterpret_cast<const std::byte*>(p), n * sizeof(float));
  };
  const float bias = head.bias();
  const std::vector<NamedTensor> tensors{
      {"weight", DType::kF32, {head.width()}, bytes(head.weight().data(), head.weight().size())},
      {"bias", DType::kF32, {1}, bytes(&bias, 1)}};
  write_safetensors(path, tensors);
}

void load_head(ScalarHead& head, const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const auto read = [&](const char* name, int64_t count) {
    TEMPER_CHECK(file.has(name) && file.at(name).dtype == DType::kF32 && file.at(name).numel() == count,
                 "[resume] ", kHeadFile, " has no ", name, " of ", count, " numbers");
    std::vector<float> v(static_cast<size_t>(count));
    std::memcpy(v.data(), file.at(name).data.data(), v.size() * sizeof(float));
    return v;
  };
  head.set(read("weight", head.width()), read("bias", 1)[0]);
}

}  // namespace

void CriticConfig::validate() const {
  TEMPER_CHECK(model == "own" || model == "trunk" || model == "trunk_joint",
               "ppo.value.model must be own, trunk or trunk_joint, got \"", model, "\"");
  TEMPER_CHECK(normalise == "none" || normalise == "running" || normalise == "popart",
               "ppo.value.normalise must be none, running or popart, got \"", normalise, "\"");
  TEMPER_CHECK(model == "own" || init.empty(), "ppo.value.init names a model to begin with, but "
               "ppo.value.model=", model, " is a head on the policy's trunk");
  TEMPER_CHECK(std::isfinite(coef) && coef >= 0, "ppo.value.coef must be at least 0, got ", coef);
  TEMPER_CHECK(warmup_steps >= 0, "ppo.value.warmup_steps must be at least 0, got ", warmup_steps);
}

Critic::Critic(const CriticConfig& config, const PolicyModel& policy, std::optional<ValueModel> own,
               const OptimizerConfig& optimizer, uint64_t seed)
    : config_(config), optimizer_config_(optimizer), seed_(seed), own_(std::move(own)) {
  config_.validate();
  TEMPER_CHECK(own_.has_value() == (config_.model == "own"), "[critic] ppo.value.model is ",
               config_.model, own_ ? ", so no model is to be given" : ", so a model must be given");
  for (const auto& p : policy.lm().parameters()) {
    if (own_ && p->grad.defined()) lent_.push_back(p->grad);
  }
  borrow_gradients();
  // Pop-Art moves the head's offset, so there must be one.
  if (!own_) head_.emplace(policy.lm().config().hidden_size, true, "value_head");
  TEMPER_CHECK(config_.normalise != "popart" || head().has_bias(),
               "ppo.value.normalise=popart needs a value head with a bias, which ",
               own_ ? own_->source().path : "", " has not: use running");
  optimizer_.emplace(parameters(), optimizer_config_, seed_);
}

/// What finds no match gets memory apart: a model's gradients are one piece, which stays as long as
/// any of them does.
void Critic::borrow_gradients() {
  if (!own_ || !own_->backbone().trainable()) return;
  std::vector<at::Tensor> left = lent_;
  for (Parameter* p : own_->backbone().parameter_list()) {
    const auto same = std::find_if(left.begin(), left.end(), [&](const at::Tensor& t) {
      return t.numel() == p->elements();
    });
    if (same == left.end()) {
      p->grad = float_zeros(p->elements());
    } else {
      p->grad = *same;
      left.erase(same);
    }
  }
}

namespace {

/// Over the same backbone, with the offset that Pop-Art moves.
ValueModel with_bias(const ValueModel& from) {
  ScalarHead head(from.head().width(), true);
  head.set(from.head().weight(), from.head().bias());
  return ValueModel(from.shared_backbone(), std::move(head), from.shared_source());
}

}  // namespace

std::optional<ValueModel> make_value_adapter(const CriticConfig& config, const PolicyModel& policy,
                                             uint64_t seed) {
  const Adapter* adapter = policy.lm().adapter();
  const std::filesystem::path init = config.init;
  const bool whole = !init.empty() && !std::filesystem::exists(init / "adapter_config.json");
  if (adapter == nullptr || whole) return std::nullopt;
  return with_bias(init.empty() ? ValueModel::over(policy, adapter->config(), seed)
                                : ValueModel::over(policy, init));
}

ValueModel make_value_model(const CriticConfig& config, std::string_view policy,
                            const RewardModel* reward, WeightDType dtype) {
  if (!config.init.empty()) return with_bias(ValueModel::load(config.init, dtype, Trainable::kYes));
  if (reward != nullptr) {
    return with_bias(ValueModel::load(reward->source().path, dtype, Trainable::kYes));
  }
  return with_bias(ValueModel::from_language_model(policy, dtype, Trainable::kYes));
}

std::vector<Parameter*> Critic::parameters() const {
  return own_ ? own_->parameters() : head_->parameters();
}

std::vector<float> Critic::values(CausalLM& trunk, const TokenBatch& batch,
                                  std::span<const int32_t> rows) {
  const at::Tensor out = own_ ? own_->values(batch, rows) : head_->values(trunk.forward(batch), rows);
  std::vector<float> v(out.data_ptr<float>(), out.data_ptr<float>() + out.numel());
  if (config_.normalise != "none") {
    for (float& x : v) x = static_cast<float>(norm_.denormalize(double{x}));
  }
  return v;
}

void Critic::observe_returns(std::span<const float> returns) {
  if (config_.normalise == "none") return;
  const ValueNorm::Rescale change = norm_.update(returns);
  if (config_.normalise != "popart") return;
  std::vector<float> weight(head().weight().begin(), head().weight().end());
  for (float& w : weight) w = static_cast<float>(double{w} * change.factor);
  const double bias = double{head().bias()} * change.factor + change.shift;
  head().set(weight, static_cast<float>(bias));
}

/// The loss in units of the head, and its gradient by the predictions.
LossOutput Critic::loss_at(const at::Tensor& predicted, ValueBatch targets, at::Tensor& gradient) const {
  targets.values = predicted.clone().requires_grad_(true);
  ValueLossConfig config{.clip = config_.clip, .coef = config_.coef};
  if (config_.normalise != "none") {
    targets.old_values = (targets.old_values - norm_.mean()) / norm_.std();
    targets.returns = (targets.returns - norm_.mean()) / norm_.std();
    if (config.clip >= 0) config.clip /= norm_.std();
  }
  LossOutput out = value_loss(targets, config);
  const double loss = out.loss.item<double>();
  TEMPER_CHECK(std::isfinite(loss), "[value] the value loss is ", loss, ": values or returns have "
               "left the finite numbers; its optimizer step was not made. Lower "
               "ppo.value.learning_rate, or set reward_clip or ppo.value.normalise=running");
  torch::autograd::backward({out.loss}, {});
  gradient = targets.values.grad().to(at::kFloat).contiguous();
  return out;
}

LossOutput Critic::train(const TokenBatch& batch, std::span<const int32_t> rows, ValueBatch targets,
                         ForwardTape& tape) {
  std::swap(tape_.forward, tape);
  own_->backbone().set_dropout_step(seed_, optimizer_->steps());
  const at::Tensor predicted = own_->values_train(batch, rows, tape_);
  at::Tensor gradient;
  LossOutput out = loss_at(predicted, std::move(targets), gradient);
  own_->values_backward(tape_, gradient);
  std::swap(tape_.forward, tape);
  return out;
}

LossOutput Critic::train_head(const at::Tensor& hidden, std::span<const int32_t> rows,
                              ValueBatch targets, at::Tensor* dhidden) {
  at::Tensor gradient;
  LossOutput out = loss_at(head_->values(hidden, rows), std::move(targets), gradient);
  head_->backward(hidden, rows, gradient, joint() ? dhidden : nullptr);
  return out;
}

void Critic::check_gradients() {
  if (own_) own_->finish_gradients();
  try {
    (void)optimizer_->gradient_norm();
  } catch (const Error& e) {
    fail("[value] ", e.what(), " Or lower ppo.value.learning_rate, set ppo.gae.reward_clip, or "
         "ppo.value.normalise=running.");
  }
}

double Critic::step(double policy_rate, double policy_peak) {
  const bool own_rate = config_.learning_rate >= 0 && policy_peak > 0;
  const double rate = own_rate ? policy_rate / policy_peak * config_.learning_rate : policy_rate;
  return optimizer_->step(rate).grad_norm;
}

void Critic::zero_gradients() { own_ ? own_->zero_gradients() : head_->zero_gradients(); }

void Critic::save(const std::filesystem::path& folder) const {
  if (own_ && own_->backbone().adapter() == nullptr) {
    own_->save(folder / kModelFolder);
  } else {
    if (own_) own_->backbone().save_adapter(folder / kModelFolder);
    save_head(own_ ? own_->head() : *head_, folder / kHeadFile);
  }
  optimizer_->save(folder / kOptimizerFile);
  const Json state{{"optimizer_steps", optimizer_->steps()},
                   {"mean", norm_.state().mean},
                   {"mean_square", norm_.state().mean_square},
                   {"weight", norm_.state().weight}};
  write_file_atomically(folder / kStateFile, state.dump(2) + "\n");
}

void Critic::load(const std::filesystem::path& folder) {
  const Json state = Json::parse(read_text_file(folder / kStateFile), nullptr, false);
  const auto number = [&](const char* key) {
    TEMPER_CHECK(state.is_object() && state.contains(key) && state[key].is_number(), "[resume] ",
                 kStateFile, " has no number \"", key, "\"");
    return state[key].get<double>();
  };
  if (own_ && own_->backbone().adapter() != nullptr) {
    std::shared_ptr<CausalLM> lm = own_->backbone().without_adapter();
    lm->load_adapter(folder / kModelFolder, Trainable::kYes);
    ScalarHead head(lm->config().hidden_size, true);
    load_head(head, folder / kHeadFile);
    optimizer_.reset();
    own_.emplace(ValueModel(std::move(lm), std::move(head), own_->shared_source()));
    borrow_gradients();
    optimizer_.emplace(parameters(), optimizer_config_, seed_);
  } else if (own_) {
    const WeightDType dtype = own_->backbone().dtype();
    optimizer_.reset();
    own_.reset();  // One copy at a time.
    own_.emplace(ValueModel::load((folder / kModelFolder).string(), dtype, Trainable::kYes));
    borrow_gradients();
    optimizer_.emplace(parameters(), optimizer_config_, seed_);
  } else {
    load_head(*head_, folder / kHeadFile);
  }
  optimizer_->load(folder / kOptimizerFile, static_cast<int64_t>(number("optimizer_steps")));
  norm_.restore({number("mean"), number("mean_square"), number("weight")});
}

uint64_t Critic::bytes() const {
  uint64_t weights = 0;
  for (const Parameter* p : parameters()) weights += static_cast<uint64_t>(p->elements()) * 4;
  return weights + optimizer_->bytes();
}

}  // namespace temper
