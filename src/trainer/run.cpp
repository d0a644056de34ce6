#include "temper/trainer/run.h"

#include <optional>
#include <utility>

#include "run_parts.h"
#include "run_rewards.h"
#include "temper/core/error.h"
#include "temper/core/log.h"
#include "temper/core/threads.h"
#include "temper/ops/reference.h"
#include "temper/trainer/jsonl_observer.h"
#include "temper/trainer/progress.h"
#include "temper/trainer/tensorboard.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

/// A trainer over a policy; the rest is the algorithm's.
using MakeTrainer =
    std::function<std::unique_ptr<OnlineTrainer>(PolicyModel&, OnlineTrainer::Parts, const ModelRewards&)>;

/// An online trainer as a loop sees it.
class OnlineLoop final : public TrainerLoop<OnlineTrainer> {
 public:
  OnlineLoop(OnlineTrainer& trainer, const OnlineRunConfig& config, std::vector<Example> held_out)
      : TrainerLoop(trainer),
        config_(config),
        held_out_{std::move(held_out), trainer.parts().rewards} {}
  Metrics step() override {
    Rollout r = trainer_.step();
    for (const auto& problem : r.scores.problems) log_warn("step ", r.step + 1, ": ", problem);
    samples_ = trainer_.describe(r, static_cast<size_t>(config_.trainer.samples_per_step));
    return std::move(r.metrics);
  }
  std::span<const SampleCompletion> samples() const override { return samples_; }
  std::optional<HeldOutScore> evaluate() override {
    return held_out_.evaluate(trainer_.policy(), config_, trainer_.steps_done());
  }
  double goodness(const HeldOutScore& score) const override {
    return static_cast<double>(score.correct);
  }
  fs::path save_model(const fs::path& run) const override {
    return save_trained_policy(trainer_.policy(), config_.adapter, run);
  }

 private:
  const OnlineRunConfig& config_;
  HeldOutPrompts held_out_;
  std::vector<SampleCompletion> samples_;
};

WeightDType weights_of(const OnlineRunConfig& c) { return parse_weight_dtype(c.trainer.weights); }

std::optional<WeightDType> reference_dtype(const OnlineRunConfig& c) {
  const std::string& name = c.trainer.reference_weights;
  return name == "same" ? std::nullopt : std::optional(parse_weight_dtype(name));
}

/// Where the config says more of the reference than its type; else the trainer copies the policy.
std::optional<ReferenceModel> make_reference(const OnlineRunConfig& c, const PolicyModel& policy,
                                             bool resumed) {
  const WeightDType type = reference_dtype(c).value_or(weights_of(c));
  if (const std::string& file = c.trainer.reference_file; !file.empty()) {
    return ReferenceModel::map_or_write(c.model, type, file);
  }
  if (!c.reward_model.share_reference) return std::nullopt;
  const bool moved = resumed && !c.adapter.used();
  return moved ? ReferenceModel::load(c.model, type) : run_reference(policy, type);
}

/// Settings that are about a reference need one, and one that others share must stay as it is.
void check_reference(const OnlineRunConfig& c, const OnlineTrainer& trainer) {
  const char* key = c.trainer.reference_file.empty() ? "reward_model.share_reference"
                                                     : "trainer.reference_file";
  TEMPER_CHECK(trainer.has_reference(), key, " is set, but the run has no reference: give a KL "
               "coefficient, or leave it out");
  TEMPER_CHECK(trainer.parts().config.ref_sync_every == 0, key, " shares the reference with others, "
               "so it cannot move: leave ref_sync_every at 0");
}

OnlineTrainer::Parts trainer_parts(const OnlineRunConfig& c, const Task& task,
                                   std::vector<NamedReward> rewards,
                                   const std::optional<ReferenceModel>& reference) {
  OnlineTrainer::Parts p;
  p.rollout = c.rollout;
  p.optimizer = c.optimizer;
  p.schedule = c.schedule;
  p.rewards = std::move(rewards);
  p.prompts = task.train;
  p.total_steps = c.trainer.steps;
  p.seed = static_cast<uint64_t>(c.trainer.seed);
  p.reference_weights = reference_dtype(c);
  p.reference = reference;
  return p;
}

/// The trainer as a checkpoint has it. @param given  whether its reference came with its parts.
void restore(const OnlineRunConfig& c, const Checkpoint& checkpoint, bool given,
             OnlineTrainer& trainer) {
  if (trainer.has_reference() && !given && !c.adapter.used() &&
      trainer.parts().config.ref_sync_every == 0) {
    trainer.set_reference(
        ReferenceModel::load(c.model, reference_dtype(c).value_or(weights_of(c))));
  }
  trainer.load(checkpoint.folder);
}

LoopSettings online_settings(const OnlineRunConfig& c, std::string text, const PolicyModel& policy,
                             const Task& task) {
  const std::string weights = c.trainer.weights +
                              (c.adapter.used() ? " and frozen under an " : "") +
                              adapter_line(policy);
  LoopSettings s = loop_settings(
      c, std::move(text), model_line(c.model, policy.lm(), "", weights, c.trainer.kernels),
      task.held_out.source);
  // LibTorch's products round by shape: there mismatched tokens are no finding.
  if (c.trainer.kernels != "cpu") s.diagnosis.silent.push_back("mismatched_tokens");
  return s;
}

/// @param text  the complete configuration.
RunResult run_online(const OnlineRunConfig& c, std::string text, const RunOptions& options,
                     const MakeTrainer& make) {
  const auto checkpoint = find_checkpoint(options);
  const auto from = checkpoint ? std::optional(checkpoint->folder) : std::nullopt;
  const Task task = make_task(c.task);
  PolicyModel policy = load_run_policy(c.model, weights_of(c), c.adapter,
                                       static_cast<uint64_t>(c.trainer.seed), from);
  const auto reference = make_reference(c, policy, checkpoint.has_value());
  const ModelRewards models = load_model_rewards(c.reward_model, reference ? &*reference : nullptr);
  std::vector<NamedReward> rewards = run_rewards({c, task, options.rewards, models, policy});
  const auto trainer =
      make(policy, trainer_parts(c, task, std::move(rewards), reference), models);
  if (reference) check_reference(c, *trainer);
  if (checkpoint) restore(c, *checkpoint, reference.has_value(), *trainer);
  std::vector<Example> held_out = task.held_out.examples;
  keep_first(held_out, c.eval.prompts);
  OnlineLoop loop(*trainer, c, std::move(held_out));
  // The folder is made last: a wrong setting leaves no half-made one.
  return TrainingLoop(loop, online_settings(c, std::move(text), policy, task), options, checkpoint)
      .run();
}

}  // namespace

std::vector<std::shared_ptr<Observer>> default_observers() {
  return {std::make_shared<ProgressObserver>(), std::make_shared<JsonlObserver>(),
          std::make_shared<TensorBoardObserver>()};
}

namespace {

/// What must be known before anything is loaded, and the settings of the whole process.
RunResult run(const OnlineRunConfig& config, std::string text, const RunOptions& options,
              const MakeTrainer& make) {
  check_named(config.model, options.output);
  check_length(config.trainer);
  if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
  const ops::KernelScope kernels(config.trainer.kernels);
  if (config.trainer.kernels != "cpu") {
    log_info("reference kernels: slow, and sampling/mismatched_tokens will not be 0");
  }
  return run_online(config, std::move(text), options, make);
}

}  // namespace

RunResult train_grpo(const GrpoRunConfig& config, const RunOptions& options) {
  return run(config, config_text(config), options,
             [&](PolicyModel& policy, OnlineTrainer::Parts parts, const ModelRewards&) {
               return std::make_unique<GrpoTrainer>(policy, config.grpo, std::move(parts));
             });
}

RunResult train_ppo(const PpoRunConfig& config, const RunOptions& options) {
  return run(config, config_text(config), options,
             [&](PolicyModel& policy, OnlineTrainer::Parts parts, const ModelRewards& rewards) {
               std::optional<ValueModel> value;
               const bool own = config.ppo.value.model == "own";
               if (own) {
                 value = make_value_adapter(config.ppo.value, policy,
                                            static_cast<uint64_t>(config.trainer.seed));
               }
               if (own && !value) {
                 const RewardModel* from = rewards.models.empty() ? nullptr : rewards.models[0].get();
                 value = make_value_model(config.ppo.value, config.model, from,
                                          parse_weight_dtype(config.trainer.weights));
               }
               return std::make_unique<PpoTrainer>(policy, config.ppo, std::move(parts),
                                                   std::move(value));
             });
}

}  // namespace temper
