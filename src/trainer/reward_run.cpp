#include "temper/trainer/reward_run.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "config_source.h"
#include "run_parts.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/trainer/run_folder.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

void check_settings(const RewardRunConfig& c) {
  check_length(c.trainer, c.eval, c.data.held_out_fraction);
  TEMPER_CHECK(!frozen_only(parse_weight_dtype(c.trainer.weights)) || c.adapter.used(),
               "trainer.weights=", c.trainer.weights, " cannot be trained without an adapter (adapter.r)");
  TEMPER_CHECK(!c.reward.freeze_backbone || !c.adapter.used(),
               "reward.freeze_backbone trains the head alone, and adapter.r an adapter: take one of them");
  TEMPER_CHECK(!c.reward.freeze_backbone || c.trainer.weights == "float32",
               "reward.freeze_backbone needs trainer.weights=float32: a frozen backbone in 16 bits "
               "keeps no float32 weights to save");
  c.reward.validate();
}

/// A frozen model under an adapter and a head: of the checkpoint, of a folder, or new.
RewardModel load_adapter(const RewardRunConfig& c, WeightDType dtype,
                         const std::optional<Checkpoint>& checkpoint) {
  fs::path folder = c.adapter.path;
  if (checkpoint) folder = checkpoint->folder / "adapter";
  if (!folder.empty()) return RewardModel::load_with_adapter(c.model, dtype, folder);
  const auto seed = static_cast<uint64_t>(c.trainer.seed);
  RewardModel model = RewardModel::load_with_adapter(c.model, dtype, c.adapter.settings(), seed);
  const auto weight = model.head().weight();
  const bool fresh = std::all_of(weight.begin(), weight.end(), [](float w) { return w == 0; });
  if (fresh) init_head(model.head(), c.reward.head_init_std, seed);
  return model;
}

/// A reward model as it stands, or a language model under a new head.
RewardModel load_model(const RewardRunConfig& c, const std::optional<Checkpoint>& checkpoint) {
  const WeightDType dtype = parse_weight_dtype(c.trainer.weights);
  const Trainable trainable = c.reward.freeze_backbone ? Trainable::kNo : Trainable::kYes;
  if (c.adapter.used()) return load_adapter(c, dtype, checkpoint);
  if (checkpoint) {
    return RewardModel::load((checkpoint->folder / "model").string(), dtype, trainable);
  }
  const auto weights = open_model(c.model).weights;
  if (weights->has("score.weight") || weights->has("v_head.summary.weight")) {
    return RewardModel::load(c.model, dtype, trainable);
  }
  RewardModel model = RewardModel::from_language_model(c.model, dtype, trainable);
  init_head(model.head(), c.reward.head_init_std, static_cast<uint64_t>(c.trainer.seed));
  return model;
}

/// Pairs to train on and pairs never trained on.
struct RewardData {
  TokenizedPairs train;
  TokenizedPairs held_out;  ///< May be empty.
};

RewardData read_data(const RewardRunConfig& c, const ModelText& text) {
  PreferenceReadOptions read = c.data.read;
  if (read.transcripts == "auto" && !text.has_template()) read.transcripts = "text";
  const auto [train, held_out] = read_parts(c.data, c.trainer.seed, [&](const std::string& path) {
    return read_preferences(path, read);
  });
  RewardData out;
  out.train = tokenize_pairs(train, text, c.data.max_length);
  if (held_out.pairs.empty()) return out;
  out.held_out = tokenize_pairs(held_out, text, c.data.max_length);
  keep_first(out.held_out.pairs, c.eval.pairs);
  return out;
}

RewardTrainer::Parts trainer_parts(const RewardRunConfig& c, TokenizedPairs train) {
  RewardTrainer::Parts p;
  p.config = c.reward;
  p.optimizer = c.optimizer;
  p.schedule = c.schedule;
  p.data = std::move(train);
  p.seed = static_cast<uint64_t>(c.trainer.seed);
  p.total_steps = steps_of(c.trainer, p.data.pairs.size(), c.reward.pairs_per_step);
  return p;
}

/// A reward trainer with its held-out pairs, as a loop sees it.
class RewardLoop final : public TrainerLoop<RewardTrainer> {
 public:
  RewardLoop(RewardTrainer& trainer, const TokenizedPairs& held_out, bool save_merged)
      : TrainerLoop(trainer), held_out_(held_out), save_merged_(save_merged) {}
  Metrics step() override { return trainer_.step(); }
  std::optional<HeldOutScore> evaluate() override {
    if (held_out_.pairs.empty()) return std::nullopt;
    const PairEvaluation e = trainer_.evaluate(held_out_.pairs);
    return HeldOutScore{e.correct, e.count, e.metrics};
  }
  double goodness(const HeldOutScore& score) const override {
    return static_cast<double>(score.correct);
  }
  fs::path save_model(const fs::path& run) const override {
    const bool adapted = trainer_.model().backbone().adapter() != nullptr;
    if (adapted) trainer_.model().save_adapter(run / "adapter");
    if (adapted && !save_merged_) return run / "adapter";
    trainer_.model().save(run / "model");
    return run / "model";
  }

 private:
  const TokenizedPairs& held_out_;
  bool save_merged_;  ///< A model under an adapter as a whole too.
};

RunResult run(const RewardRunConfig& c, const RunOptions& options) {
  const auto checkpoint = find_checkpoint(options);
  RewardModel model = load_model(c, checkpoint);
  RewardData data = read_data(c, model.text());
  RewardTrainer trainer(model, trainer_parts(c, std::move(data.train)));
  if (checkpoint) trainer.load(checkpoint->folder);
  RewardLoop loop(trainer, data.held_out, c.adapter.save_merged);
  const std::string head = c.reward.freeze_backbone ? " (frozen) and a reward head" : " and a reward head";
  LoopSettings settings = loop_settings(
      c, config_text(c),
      model_line(c.model, model.backbone(), head, c.trainer.weights, c.trainer.kernels),
      data.held_out.source);
  // The folder is made last: a wrong setting leaves no half-made one.
  return TrainingLoop(loop, std::move(settings), options, checkpoint).run();
}

}  // namespace

RewardRunConfig read_reward_config(const std::string& json_text, const std::string& source,
                                   const std::vector<std::string>& assignments) {
  RewardRunConfig config;
  apply_settings(config, parse_config(json_text, source), source, assignments);
  return config;
}

std::string config_text(RewardRunConfig config) { return text_of(config); }

std::string describe_batch(const RewardRunConfig& c) {
  return concat("Trains for ", length_in_words(c.trainer, "pairs"), ", ", c.reward.pairs_per_step,
                " pairs a step, each side at most ", c.data.max_length,
                " tokens, in micro-batches of at most ", c.reward.micro_batch_tokens, " tokens.");
}

RunResult train_reward(const RewardRunConfig& config, const RunOptions& options) {
  check_named(config.model, options.output);
  TEMPER_CHECK(!config.data.path.empty(), "no pairs were named: give the config key \"data.path\"");
  check_settings(config);
  if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
  const ops::KernelScope kernels(config.trainer.kernels);
  return run(config, options);
}

}  // namespace temper
