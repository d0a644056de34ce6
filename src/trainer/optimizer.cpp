#include "temper/trainer/optimizer.h"

#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstring>

#include "temper/core/error.h"
#include "temper/core/rng.h"
#include "temper/formats/safetensors.h"
#include "temper/kernels/adamw.h"

namespace temper {
namespace {

std::span<const std::byte> bytes_of(const at::Tensor& t) {
  return {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()};
}

DType type_of(const at::Tensor& t) {
  return t.scalar_type() == at::kBFloat16 ? DType::kBF16 : DType::kF32;
}

void restore(const SafetensorsFile& file, const std::string& name, const at::Tensor& to) {
  TEMPER_CHECK(file.has(name), "[resume] the optimizer state has no ", name,
               ": it belongs to another model");
  const TensorView& from = file.at(name);
  TEMPER_CHECK(from.numel() == to.numel(), "[resume] ", name, " has ", from.numel(),
               " elements, expected ", to.numel());
  TEMPER_CHECK(from.dtype == type_of(to), "[resume] the optimizer state's moments are not in ",
               type_of(to) == DType::kF32 ? "float32" : "bfloat16",
               ", which optimizer.moments asks for: go on with the type that the run began with");
  std::memcpy(to.data_ptr(), from.data.data(), from.data.size());
}

uint16_t* words(const at::Tensor& t) { return static_cast<uint16_t*>(t.data_ptr()); }

}  // namespace

void OptimizerConfig::validate() const {
  TEMPER_CHECK(beta1 >= 0 && beta1 < 1, "optimizer.beta1 must be in [0, 1), got ", beta1);
  TEMPER_CHECK(beta2 >= 0 && beta2 < 1, "optimizer.beta2 must be in [0, 1), got ", beta2);
  TEMPER_CHECK(eps > 0, "optimizer.eps must be above 0, got ", eps);
  TEMPER_CHECK(weight_decay >= 0, "optimizer.weight_decay must be at least 0, got ", weight_decay);
  TEMPER_CHECK(max_grad_norm >= 0, "optimizer.max_grad_norm must be at least 0, got ", max_grad_norm);
  TEMPER_CHECK(moments == "float32" || moments == "bfloat16",
               "optimizer.moments must be float32 or bfloat16, got \"", moments, "\"");
}

Optimizer::Optimizer(std::vector<Parameter*> parameters, OptimizerConfig config, uint64_t seed)
    : parameters_(std::move(parameters)), config_(std::move(config)), seed_(seed) {
  config_.validate();
  const auto zeros = [&](const Parameter& p) {
    return rounded() ? at::zeros({p.elements()}, at::kBFloat16) : float_zeros(p.elements());
  };
  for (const Parameter* p : parameters_) {
    TEMPER_CHECK(p->grad.defined(), "[optimizer] ", p->name, " is frozen: load the model as trainable");
    exp_avg_.push_back(zeros(*p));
    exp_avg_sq_.push_back(zeros(*p));
  }
}

double Optimizer::gradient_norm() const {
  std::vector<double> squares;
  for (const Parameter* p : parameters_) {
    const double s = kernels::sum_of_squares(p->grad_data(), p->elements());
    TEMPER_CHECK(std::isfinite(s), "[optimizer] the gradient of ", p->name,
                 " is not finite; the weights were left as they are. Lower the learning rate, or "
                 "check the rewards of this step.");
    squares.push_back(s);
  }
  return kernels::global_norm(squares);
}

Optimizer::Result Optimizer::step(double learning_rate) {
  const Result result{gradient_norm(), true};
  const auto scale =
      static_cast<float>(kernels::clip_factor(result.grad_norm, config_.max_grad_norm));
  ++steps_;
  for (size_t i = 0; i < parameters_.size(); ++i) update(i, learning_rate, scale);
  for (Parameter* p : parameters_) p->grad.zero_();
  return result;
}

void Optimizer::update(size_t index, double learning_rate, float scale) {
  Parameter& p = *parameters_[index];
  kernels::AdamWArgs args{.param = p.data(), .grad = p.grad_data(),
                          .bf16 = p.half_data(at::kBFloat16), .f16 = p.half_data(at::kHalf),
                          .count = p.elements(), .grad_scale = scale,
                          .learning_rate = learning_rate, .beta1 = config_.beta1,
                          .beta2 = config_.beta2, .eps = config_.eps,
                          .weight_decay = p.matrix ? config_.weight_decay : 0.0, .step = steps_};
  if (rounded()) {
    args.exp_avg_bf16 = words(exp_avg_[index]);
    args.exp_avg_sq_bf16 = words(exp_avg_sq_[index]);
    const auto key = keyed_random(seed_, RngPurpose::kMoments, static_cast<uint32_t>(steps_), index, 0);
    args.rounding_key = uint64_t{key[0]} << 32 | key[1];
  } else {
    args.exp_avg = exp_avg_[index].data_ptr<float>();
    args.exp_avg_sq = exp_avg_sq_[index].data_ptr<float>();
  }
  kernels::adamw(args);
  ++p.version;
}

size_t Optimizer::bytes() const {
  size_t total = 0;
  for (const auto& t : exp_avg_) total += 2 * t.nbytes();
  return total;
}

void Optimizer::save(const std::filesystem::path& file) const {
  std::vector<NamedTensor> tensors;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const std::vector<int64_t> shape{parameters_[i]->elements()};
    tensors.push_back({"exp_avg." + parameters_[i]->name, type_of(exp_avg_[i]), shape,
                       bytes_of(exp_avg_[i])});
    tensors.push_back({"exp_avg_sq." + parameters_[i]->name, type_of(exp_avg_sq_[i]), shape,
                       bytes_of(exp_avg_sq_[i])});
  }
  write_safetensors(file, tensors);
}

void Optimizer::load(const std::filesystem::path& file, int64_t steps) {
  const SafetensorsFile state = SafetensorsFile::open(file);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    restore(state, "exp_avg." + parameters_[i]->name, exp_avg_[i]);
    restore(state, "exp_avg_sq." + parameters_[i]->name, exp_avg_sq_[i]);
  }
  steps_ = steps;
}

}  // namespace temper
