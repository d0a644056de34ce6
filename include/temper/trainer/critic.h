#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "temper/data/packing.h"
#include "temper/nn/scalar_model.h"
#include "temper/nn/scoring.h"
#include "temper/objective/value_loss.h"
#include "temper/objective/value_norm.h"
#include "temper/trainer/optimizer.h"

namespace temper {

/// PPO's value model.
struct CriticConfig {
  std::string model = "own";
  std::string init = "";
  double coef = 0.1;
  double clip = 0.2;
  std::string normalise = "none";
  double learning_rate = -1;
  int64_t warmup_steps = 0;

  template <class V>
  void visit(V&& v) {
    v(model, "model",
      "own: a model of its own; trunk: a head on the policy's hidden rows, whose gradient stops "
      "there; trunk_joint: one whose gradient goes on into the policy.",
      {"own", "trunk", "trunk_joint"});
    v(init, "init",
      "own: folder of a reward or value model to begin with; empty: the first reward model, or else "
      "the policy under a head of zeros. Where the policy is an adapter, empty or an adapter's folder "
      "(task_type SEQ_CLS): the value model is an adapter too, over the policy's weights.");
    v(coef, "coef", "Weight of the value loss: what it may move the trunk, where that is shared.");
    v(clip, "clip", "Values may move this far from those of the rollout; negative: any distance.");
    v(normalise, "normalise",
      "Predict returns in units of their running deviation; popart: rescale the head whenever the "
      "units change, so that no value jumps.",
      {"none", "running", "popart"});
    v(learning_rate, "learning_rate", "Peak of the value model; negative: the policy's. Same shape.");
    v(warmup_steps, "warmup_steps", "First rollouts that train the value model alone.");
  }
  void validate() const;
};

/// The value model of a run with its units, its loss and its optimizer: a backbone of its own, or a
/// head on the policy's trunk. Values are in the units of returns. Their bits depend on the
/// weights and a token's own text alone.
///
/// A model of its own adds its gradients up in the policy's memory, tensor by tensor where one of the
/// policy's has as many elements and is not lent yet: 4 bytes a weight less. So its part of an
/// optimizer step, from the first `train` to `step`, must lie where the policy's gradients are zero,
/// and leaves them zero.
class Critic {
 public:
  /// @param own  the model for `model = own`, trainable; it must be absent for the others.
  /// @param seed  of its optimizer's draws.
  Critic(const CriticConfig& config, const PolicyModel& policy, std::optional<ValueModel> own,
         const OptimizerConfig& optimizer, uint64_t seed = 0);

  [[nodiscard]] bool on_trunk() const { return !own_.has_value(); }
  [[nodiscard]] bool joint() const { return config_.model == "trunk_joint"; }
  [[nodiscard]] const CriticConfig& config() const { return config_; }

  /// Values [M] at rows of a batch. @param trunk  the policy's model, run for a head on its trunk.
  [[nodiscard]] std::vector<float> values(CausalLM& trunk, const TokenBatch& batch,
                                          std::span<const int32_t> rows);

  /// Takes in a rollout's returns, before the first update on it; moves the units of `normalise`.
  void observe_returns(std::span<const float> returns);

  /// One micro-batch for a model of its own: forward, loss, backward.
  /// @param tape  activations' memory, lent by the policy, which does not need it now.
  /// @param targets  [M] old values and returns in the units of returns; `values` is left open.
  [[nodiscard]] LossOutput train(const TokenBatch& batch, std::span<const int32_t> rows,
                                 ValueBatch targets, ForwardTape& tape);
  /// The same for a head on the trunk's rows [N, hidden].
  /// @param dhidden  [N, hidden]: with `joint`, d loss / d hidden is added to it.
  [[nodiscard]] LossOutput train_head(const at::Tensor& hidden, std::span<const int32_t> rows,
                                      ValueBatch targets, at::Tensor* dhidden);

  /// Ends the accumulation. @throws Error if a gradient is not finite: before anything is stepped.
  void check_gradients();
  /// Clips and applies the gradients, after `check_gradients`. @param policy_rate  the schedule's rate of this step.
  /// @param policy_peak  the schedule's peak. @return the gradient's norm.
  double step(double policy_rate, double policy_peak);
  void zero_gradients();

  /// Weights, moments and units; files that begin with "value".
  void save(const std::filesystem::path& folder) const;
  void load(const std::filesystem::path& folder);
  [[nodiscard]] uint64_t bytes() const;
  [[nodiscard]] std::vector<Parameter*> parameters() const;

 private:
  [[nodiscard]] ScalarHead& head() { return own_ ? own_->head() : *head_; }
  [[nodiscard]] LossOutput loss_at(const at::Tensor& predicted, ValueBatch targets,
                                   at::Tensor& gradient) const;
  void borrow_gradients();

  CriticConfig config_;
  OptimizerConfig optimizer_config_;
  uint64_t seed_;
  std::vector<at::Tensor> lent_;  ///< The policy's gradients, where `own_` may put its own.
  std::optional<ValueModel> own_;
  std::optional<ScalarHead> head_;
  ValueNorm norm_;
  std::optional<Optimizer> optimizer_;
  ScalarTape tape_;
};

/// The model of `model = own`: that of `init`, else the reward model's file, else the policy's under a
/// head of zeros. @param policy  spec of the policy's model. @param reward  may be null.
[[nodiscard]] ValueModel make_value_model(const CriticConfig& config, std::string_view policy,
                                          const RewardModel* reward, WeightDType dtype);
/// The same over the weights of a policy that is an adapter, which are not copied: an adapter of the
/// policy's settings under a head of zeros, or that of `init`. Nothing where the policy is none, or
/// `init` names a whole model.
[[nodiscard]] std::optional<ValueModel> make_value_adapter(const CriticConfig& config,
                                                           const PolicyModel& policy, uint64_t seed);

}  // namespace temper
