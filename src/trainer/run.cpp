#include "temper/trainer/run.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "run_rewards.h"
#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/log.h"
#include "temper/core/threads.h"
#include "temper/ops/reference.h"
#include "temper/reward/timeout.h"
#include "temper/trainer/jsonl_observer.h"
#include "temper/trainer/progress.h"
#include "temper/trainer/report.h"
#include "temper/trainer/run_folder.h"
#include "temper/trainer/tensorboard.h"
#include "temper/version.h"
#include "training_loop.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// A trainer over a policy; the rest is the algorithm's.
using MakeTrainer =
    std::function<std::unique_ptr<OnlineTrainer>(PolicyModel&, OnlineTrainer::Parts, const ModelRewards&)>;

/// One call of `train_grpo` or `train_ppo`.
class OnlineRun {
 public:
  /// @param text  the complete configuration.
  OnlineRun(const OnlineRunConfig& config, std::string text, const RunOptions& options,
            const MakeTrainer& make)
      : config_(config), text_(std::move(text)), options_(options),
        checkpoint_(find_checkpoint(options)),
        task_(make_task(config.task)),
        policy_(load_run_policy(config.model, dtype(), config.adapter, seed(),
                                checkpoint_ ? std::optional(checkpoint_->folder) : std::nullopt)),
        reference_(make_reference()),
        model_rewards_(load_model_rewards(config.reward_model, reference_ ? &*reference_ : nullptr)),
        owned_trainer_(make(policy_, parts(), model_rewards_)), trainer_(checked(*owned_trainer_)),
        diagnosis_(diagnosis_config()),
        folder_(options.resume ? RunFolder::resume(options.output) : RunFolder::create(options.output)) {
    if (checkpoint_) restore();
    hold_out();
  }

  RunResult train() {
    folder_.write_config(text_);
    const RunInfo info{folder_.path(), text_, trainer_.total_steps(),
                       trainer_.steps_done(), model_line(), TEMPER_VERSION};
    each([&](Observer& o) { o.on_start(info); });
    const Stopwatch watch;
    try {
      if (trainer_.steps_done() == 0 && config_.eval.every >= 0) result_.before = run_eval();
      while (trainer_.steps_done() < trainer_.total_steps() && result_.reason.empty()) one_step();
    } catch (const RewardTimeout&) {
      // The step was not begun as far as the trainer is concerned: what it has is worth keeping.
      if (trainer_.steps_done() > 0) checkpoint();
      throw;
    }
    result_.steps = trainer_.steps_done();
    result_.completed = result_.steps == trainer_.total_steps();
    if (result_.completed) result_.reason.clear();  // A wish to stop came with the last step.
    if (result_.completed) finish();
    const EndEvent end{result_.steps, trainer_.total_steps(), watch.seconds(), result_.completed,
                       result_.reason};
    each([&](Observer& o) { o.on_end(end); });
    write_report(folder_.path());
    return result_;
  }

 private:
  uint64_t seed() const { return static_cast<uint64_t>(config_.trainer.seed); }

  WeightDType dtype() const {
    return parse_weight_dtype(config_.trainer.weights);
  }

  std::optional<WeightDType> reference_dtype() const {
    const std::string& name = config_.trainer.reference_weights;
    return name == "same" ? std::nullopt : std::optional(parse_weight_dtype(name));
  }

  /// Where the config says more of the reference than its type; else the trainer copies the policy.
  std::optional<ReferenceModel> make_reference() const {
    const WeightDType type = reference_dtype().value_or(dtype());
    if (const std::string& file = config_.trainer.reference_file; !file.empty()) {
      return ReferenceModel::map_or_write(config_.model, type, file);
    }
    if (!config_.reward_model.share_reference) return std::nullopt;
    const bool moved = checkpoint_ && !config_.adapter.used();
    return moved ? ReferenceModel::load(config_.model, type) : run_reference(policy_, type);
  }

  /// Settings that are about a reference need one, and one that others share must stay as it is.
  OnlineTrainer& checked(OnlineTrainer& trainer) const {
    if (!reference_) return trainer;
    const char* key = config_.trainer.reference_file.empty() ? "reward_model.share_reference"
                                                             : "trainer.reference_file";
    TEMPER_CHECK(trainer.has_reference(), key, " is set, but the run has no reference: give a KL "
                 "coefficient, or leave it out");
    TEMPER_CHECK(trainer.parts().config.ref_sync_every == 0, key, " shares the reference with others, "
                 "so it cannot move: leave ref_sync_every at 0");
    return trainer;
  }

  bool exact() const { return config_.trainer.kernels == "cpu"; }

  /// LibTorch's products round by shape: there mismatched tokens are no finding.
  DiagnosisConfig diagnosis_config() const {
    DiagnosisConfig diagnosis = config_.diagnosis;
    if (!exact()) diagnosis.silent.push_back("mismatched_tokens");
    return diagnosis;
  }

  std::vector<NamedReward> rewards() const {
    return run_rewards({config_, task_, options_.rewards, model_rewards_, policy_});
  }

  OnlineTrainer::Parts parts() const {
    TEMPER_CHECK(config_.trainer.steps >= 1, "trainer.steps must be at least 1, got ", config_.trainer.steps);
    TEMPER_CHECK(config_.trainer.seed >= 0, "trainer.seed must be at least 0, got ", config_.trainer.seed);
    TEMPER_CHECK(config_.trainer.checkpoint_every >= 0, "trainer.checkpoint_every must be at least 0, got ",
                 config_.trainer.checkpoint_every);
    TEMPER_CHECK(config_.trainer.keep_last >= 1, "trainer.keep_last must be at least 1, got ",
                 config_.trainer.keep_last);
    TEMPER_CHECK(config_.trainer.samples_per_step >= 0, "trainer.samples_per_step must be at least 0, got ",
                 config_.trainer.samples_per_step);
    OnlineTrainer::Parts p;
    p.rollout = config_.rollout;
    p.optimizer = config_.optimizer;
    p.schedule = config_.schedule;
    p.rewards = rewards();
    p.prompts = task_.train;
    p.total_steps = config_.trainer.steps;
    p.seed = static_cast<uint64_t>(config_.trainer.seed);
    p.reference_weights = reference_dtype();
    p.reference = reference_;
    return p;
  }

  /// A run that goes on with other arithmetic is not the run that it was.
  void check_numerics(const Json& state) const {
    const auto check = [&](const char* key, const std::string& now) {
      const std::string then = state.value(key, now);
      TEMPER_CHECK(then == now || options_.force, "[resume] trainer.", key, " is ", now,
                   " but the checkpoint was trained with ", then, ": set trainer.", key, "=", then,
                   ", or use --force to go on with other numbers");
    };
    check("weights", config_.trainer.weights);
    check("reference_weights", config_.trainer.reference_weights);
    check("kernels", config_.trainer.kernels);
  }

  void restore() {
    if (trainer_.has_reference() && !reference_ && !config_.adapter.used() &&
        trainer_.parts().config.ref_sync_every == 0) {
      trainer_.set_reference(ReferenceModel::load(config_.model, reference_dtype().value_or(dtype())));
    }
    trainer_.load(checkpoint_->folder);
    const Json state = Json::parse(read_text_file(checkpoint_->folder / "run.json"), nullptr, false);
    TEMPER_CHECK(state.is_object() && state.contains("diagnosis"), "[resume] run.json of ",
                 checkpoint_->folder.string(), " is damaged");
    check_numerics(state);
    diagnosis_.restore(state["diagnosis"]);
    best_score_ = state.value("best_score", best_score_);
    best_step_ = state.value("best_step", best_step_);
    log_info("resuming after step ", trainer_.steps_done(), " of ", trainer_.total_steps());
  }

  void hold_out() {
    held_out_ = task_.held_out.examples;
    const size_t most = static_cast<size_t>(std::max<int64_t>(0, config_.eval.prompts));
    if (most > 0 && held_out_.size() > most) held_out_.resize(most);
    eval_rollout_ = config_.rollout;
  }

  void each(const std::function<void(Observer&)>& call) const {
    for (const auto& o : options_.observers) call(*o);
  }

  std::string model_line() const {
    int64_t parameters = 0;
    for (const auto& p : policy_.lm().parameters()) parameters += p->n * p->k;
    return concat(config_.model, ", ", parameters / 1000000.0, " M parameters, ", config_.trainer.weights,
                  config_.adapter.used() ? " and frozen under an " : "", adapter_line(policy_),
                  exact() ? "" : ", reference kernels");
  }

  HeldOutScore run_eval() {
    if (held_out_.empty()) return {};
    const Stopwatch watch;
    const auto ask = [&](double temperature) {
      RolloutConfig rollout = eval_rollout_;
      rollout.temperature = temperature;
      try {
        return evaluate(policy_, held_out_, trainer_.parts().rewards, rollout, trainer_.parts().seed,
                        static_cast<uint32_t>(trainer_.steps_done()));
      } catch (const RewardTimeout& e) {
        throw e.at(concat("the evaluation after step ", trainer_.steps_done()));
      }
    };
    EvalResult e = ask(config_.eval.temperature);
    if (config_.eval.greedy_too) {
      for (const auto& [name, value] : ask(0).metrics) {
        e.metrics["eval/greedy" + name.substr(std::string_view("eval").size())] = value;
      }
    }
    const EvalEvent event{trainer_.steps_done(), task_.held_out.source, e.correct, e.count,
                          watch.seconds(), e.metrics};
    each([&](Observer& o) { o.on_eval(event); });
    return {e.correct, e.count, e.metrics};
  }

  void one_step() {
    Rollout r = trainer_.step();
    const double seconds = r.metrics["step_time"];
    result_.train_seconds += seconds;
    const auto samples = trainer_.describe(r, static_cast<size_t>(config_.trainer.samples_per_step));
    const StepEvent event{trainer_.steps_done(), trainer_.total_steps(), seconds, trainer_.epoch(),
                          r.metrics, samples};
    each([&](Observer& o) { o.on_step(event); });
    for (const auto& problem : r.scores.problems) log_warn("step ", r.step + 1, ": ", problem);
    for (const Alarm& alarm : diagnosis_.check(trainer_.steps_done(), r.metrics)) {
      each([&](Observer& o) { o.on_alarm(alarm); });
      if (alarm.stop) result_.reason = alarm.sentence;
    }
    if (options_.stop_requested && options_.stop_requested()) result_.reason = "stopped on request";
    after_step();
  }

  void after_step() {
    const int64_t step = trainer_.steps_done();
    const bool last = step == trainer_.total_steps();
    bool best = false;
    if (config_.eval.every > 0 && step % config_.eval.every == 0 && !last) {
      const HeldOutScore score = run_eval();
      if (score.count > 0 && score.correct > best_score_) {
        best_score_ = score.correct;
        best_step_ = step;
        best = config_.trainer.keep_best;
      }
    }
    const int64_t every = config_.trainer.checkpoint_every;
    const bool due = every > 0 && (step % every == 0 || last);
    if (due || best || !result_.reason.empty()) checkpoint();
  }

  void checkpoint() {
    CheckpointWriter writer = folder_.begin(trainer_.steps_done(), trainer_.checkpoint_bytes());
    trainer_.save(writer.folder());
    const Json state{{"diagnosis", diagnosis_.state()}, {"best_score", best_score_}, {"best_step", best_step_},
                     {"weights", config_.trainer.weights}, {"reference_weights", config_.trainer.reference_weights},
                     {"kernels", config_.trainer.kernels}};
    write_file_atomically(writer.folder() / "run.json", state.dump(2) + "\n");
    const fs::path done = writer.commit();
    each([&](Observer& o) { o.on_checkpoint(trainer_.steps_done(), done); });
    const bool best = config_.trainer.keep_best && best_step_ > 0;
    folder_.keep_last(config_.trainer.keep_last, best ? std::optional(best_step_) : std::nullopt);
  }

  void finish() {
    if (config_.eval.every >= 0) result_.after = run_eval();
    if (!config_.trainer.save_model) return;
    result_.model = save_trained_policy(policy_, config_.adapter, folder_.path());
  }

  const OnlineRunConfig& config_;
  const std::string text_;
  const RunOptions& options_;
  std::optional<Checkpoint> checkpoint_;
  Task task_;
  PolicyModel policy_;
  std::optional<ReferenceModel> reference_;
  ModelRewards model_rewards_;
  std::unique_ptr<OnlineTrainer> owned_trainer_;
  OnlineTrainer& trainer_;
  Diagnosis diagnosis_;
  RunFolder folder_;  // Made last: a wrong setting leaves no half-made folder.
  std::vector<Example> held_out_;
  RolloutConfig eval_rollout_;
  RunResult result_;
  int64_t best_score_ = -1;
  int64_t best_step_ = 0;
};

}  // namespace

std::vector<std::shared_ptr<Observer>> default_observers() {
  return {std::make_shared<ProgressObserver>(), std::make_shared<JsonlObserver>(),
          std::make_shared<TensorBoardObserver>()};
}

namespace {

/// What must be known before anything is loaded, and the settings of the whole process.
RunResult run(const OnlineRunConfig& config, std::string text, const RunOptions& options,
              const MakeTrainer& make) {
  TEMPER_CHECK(!config.model.empty(), "no model was named: give --model or the config key \"model\"");
  TEMPER_CHECK(!options.output.empty(), "no output folder was named: give --output");
  if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
  const ops::KernelScope kernels(config.trainer.kernels);
  if (config.trainer.kernels != "cpu") {
    log_info("reference kernels: slow, and sampling/mismatched_tokens will not be 0");
  }
  return OnlineRun(config, std::move(text), options, make).train();
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
