#include "temper/trainer/preference_run.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "run_labeler.h"
#include "run_parts.h"
#include "run_rewards.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/ops/reference.h"
#include "temper/trainer/judge_reward.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

Opponent opponent_of(const std::string& loss) {
  if (loss == "xpo") return Opponent::kReference;
  return loss == "nash_md" ? Opponent::kMixture : Opponent::kPolicy;
}

void check_run(const PreferenceRunConfig& c) {
  check_length(c.trainer);
  check_at_least("eval.every", c.eval.every, -1);
  c.preference.validate();
}

/// Settings that do not go with the loss.
void check_method(const PreferenceRunConfig& c) {
  const PreferenceConfig& p = c.preference;
  const std::string& loss = c.loss.name();
  const bool opponent = opponent_of(loss) != Opponent::kPolicy;
  TEMPER_CHECK(!opponent || p.reference == "initial", "preference.reference=round gives ", loss,
               " an opponent that is the policy itself: leave it at initial");
  TEMPER_CHECK(!opponent || p.file_share == 0, "preference.file_share must be 0 for ", loss,
               ": given pairs do not say whose answers they are");
  TEMPER_CHECK(loss != "nash_md" || p.replay_rows == 0,
               "preference.replay_rows must be 0 for nash_md: a policy gradient needs the answers of "
               "the present policy");
  TEMPER_CHECK(p.file_share == 0 || !c.pairs.path.empty(),
               "preference.file_share is ", p.file_share, ", but pairs.path names no file");
  TEMPER_CHECK(c.pairs.path.empty() || p.file_share > 0, "pairs.path is set, but "
               "preference.file_share is 0: nothing would be read from it");
}

WeightDType weights_of(const PreferenceRunConfig& c) {
  return parse_weight_dtype(c.trainer.weights);
}

WeightDType reference_weights(const PreferenceRunConfig& c) {
  const std::string& name = c.trainer.reference_weights;
  return name == "same" ? weights_of(c) : parse_weight_dtype(name);
}

/// The model as the run began; nothing where none is asked.
std::optional<ReferenceModel> initial_reference(const PreferenceRunConfig& c,
                                                const PolicyModel& policy, bool resumed) {
  const bool asked = c.loss.needs().reference && c.preference.reference == "initial";
  const bool shared = c.reward_model.share_reference || !c.trainer.reference_file.empty();
  TEMPER_CHECK(asked || !shared, "reward_model.share_reference and trainer.reference_file need "
               "preference.reference=initial: the run keeps no other model");
  if (!asked) return std::nullopt;
  if (!c.trainer.reference_file.empty()) {
    return ReferenceModel::map_or_write(c.model, reference_weights(c), c.trainer.reference_file);
  }
  const bool moved = resumed && policy.lm().adapter() == nullptr;
  if (moved) return ReferenceModel::load(c.model, reference_weights(c));
  return run_reference(policy, reference_weights(c));
}

std::unique_ptr<PairSource> file_pairs(const PreferenceRunConfig& c, const ModelText& text,
                                       int64_t rows) {
  CompletionReadOptions read = c.pairs.read;
  if (read.transcripts == "auto" && !text.has_template()) read.transcripts = "text";
  return std::make_unique<FilePairs>(
      tokenize_answer_pairs(read_completions(c.pairs.path, read), text, c.pairs.limit), rows,
      static_cast<uint64_t>(c.trainer.seed));
}

/// Where a run's rows come from. @param sampled  says how the policy's own are made.
std::unique_ptr<PairSource> make_source(const PreferenceRunConfig& c, PolicyModel& policy,
                                        SampledPairs::Parts sampled) {
  const PreferenceConfig& p = c.preference;
  const int64_t all = p.sampling.prompts_per_round;
  const auto given = static_cast<int64_t>(p.file_share * static_cast<double>(all) + 0.5);
  std::vector<std::unique_ptr<PairSource>> sources;
  sampled.config.prompts_per_round = all - given;
  if (given < all) sources.push_back(std::make_unique<SampledPairs>(policy, std::move(sampled)));
  if (p.replay_rows > 0 && !sources.empty()) {
    sources[0] = std::make_unique<ReplayedPairs>(std::move(sources[0]),
                                                 ReplayConfig{p.replay_rows, p.replay_steps},
                                                 static_cast<uint64_t>(c.trainer.seed));
  }
  if (given > 0) sources.push_back(file_pairs(c, policy.text(), given));
  if (sources.size() == 1) return std::move(sources[0]);
  return std::make_unique<MixedPairs>(std::move(sources));
}

Metrics constants_of(const PreferenceRunConfig& c) {
  Metrics m{{"beta", c.loss.setting("beta")}};
  if (c.loss.name() == "xpo") m["alpha"] = c.loss.setting("alpha");
  if (c.loss.name() == "nash_md") m["mixture_coef"] = c.preference.sampling.mixture_coef;
  return m;
}

/// A preference trainer as a loop sees it.
class PreferenceLoop final : public TrainerLoop<PreferenceTrainer> {
 public:
  PreferenceLoop(PreferenceTrainer& trainer, PolicyModel& policy, const PreferenceRunConfig& config,
                 HeldOutPrompts held_out)
      : TrainerLoop(trainer),
        policy_(policy),
        config_(config),
        held_out_(std::move(held_out)),
        probe_(AnswerProbe::make(config.probe, policy.text())) {}
  Metrics step() override {
    Metrics m = trainer_.step();
    if (probe_) probe_->add_to(m, trainer_.steps_done(), policy_.lm());
    return m;
  }
  std::span<const SampleCompletion> samples() const override {
    const auto& all = trainer_.samples();
    return std::span(all).first(
        std::min(all.size(), static_cast<size_t>(config_.trainer.samples_per_step)));
  }
  std::optional<HeldOutScore> evaluate() override {
    return held_out_.evaluate(policy_, config_, trainer_.steps_done());
  }
  double goodness(const HeldOutScore& score) const override {
    return static_cast<double>(score.correct);
  }
  fs::path save_model(const fs::path& run) const override {
    return save_trained_policy(policy_, config_.adapter, run);
  }

 private:
  PolicyModel& policy_;
  const PreferenceRunConfig& config_;
  HeldOutPrompts held_out_;
  std::optional<AnswerProbe> probe_;
};

/// The judge of labeler.kind=judge, else none.
std::shared_ptr<ModelJudge> labelling_judge(const PreferenceRunConfig& c, const PolicyModel& policy) {
  if (c.labeler.kind != "judge" || c.judge.model.empty()) return nullptr;
  return make_judge(c.judge, policy);
}

PreferenceTrainer::Parts trainer_parts(const PreferenceRunConfig& c) {
  PreferenceTrainer::Parts p;
  p.config = c.preference;
  p.objective = c.loss.build();
  p.needs = c.loss.needs();
  p.optimizer = c.optimizer;
  p.schedule = c.schedule;
  p.beta = c.loss.setting("beta");
  p.constants = constants_of(c);
  p.total_steps = c.trainer.steps;
  p.seed = static_cast<uint64_t>(c.trainer.seed);
  return p;
}

RunResult run(const PreferenceRunConfig& c, const RunOptions& options) {
  const auto checkpoint = find_checkpoint(options);
  const auto from = checkpoint ? std::optional(checkpoint->folder) : std::nullopt;
  Task task = make_task(c.task);
  PolicyModel policy = load_run_policy(c.model, weights_of(c), c.adapter,
                                       static_cast<uint64_t>(c.trainer.seed), from);
  const auto reference = initial_reference(c, policy, checkpoint.has_value());
  const ModelRewards models = load_model_rewards(c.reward_model, reference ? &*reference : nullptr);
  const std::shared_ptr<ModelJudge> judge = labelling_judge(c, policy);
  OnlineRunConfig rewarded = c;
  if (judge) rewarded.judge.model.clear();  // It labels, and is no reward besides.
  const RewardSources sources{rewarded, task, options.rewards, models, policy};
  std::vector<NamedReward> rewards;
  if (has_rewards(sources)) rewards = run_rewards(sources);
  SampledPairs::Parts sampled;
  sampled.config = c.preference.sampling;
  sampled.rollout = c.rollout;
  sampled.prompts = task.train;
  sampled.labeler = make_run_labeler({c.labeler, rewards, policy, judge});
  sampled.opponent = opponent_of(c.loss.name());
  sampled.reference = reference;
  sampled.seed = static_cast<uint64_t>(c.trainer.seed);
  PreferenceTrainer::Parts parts = trainer_parts(c);
  parts.reference = reference;
  parts.source = make_source(c, policy, std::move(sampled));
  PreferenceTrainer trainer(policy, std::move(parts));
  std::vector<Example> held_out = task.held_out.examples;
  keep_first(held_out, c.eval.prompts);
  // Marks of held-out answers stand beside the gold scores; comparisons would need two answers.
  if (judge && c.judge.mode == "pointwise") rewards.push_back({"judge", judge_reward(judge), 0});
  PreferenceLoop loop(trainer, policy, c, {std::move(held_out), rewards});
  if (checkpoint) trainer.load(checkpoint->folder);
  LoopSettings settings = loop_settings(
      c, config_text(c), model_line(c.model, policy, c.trainer.weights, c.trainer.kernels),
      task.held_out.source);
  return TrainingLoop(loop, std::move(settings), options, checkpoint).run();
}

}  // namespace

RunResult train_preference(const PreferenceRunConfig& config, const RunOptions& options) {
  check_named(config.model, options.output);
  check_run(config);
  check_method(config);
  if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
  const ops::KernelScope kernels(config.trainer.kernels);
  return run(config, options);
}

}  // namespace temper
