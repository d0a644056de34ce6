#include "temper/trainer/reward_run.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <utility>

#include "config_source.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/trainer/run_folder.h"
#include "training_loop.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

void check_settings(const RewardRunConfig& c) {
  const auto at_least = [](const char* key, int64_t value, int64_t least) {
    TEMPER_CHECK(value >= least, key, " must be at least ", least, ", got ", value);
  };
  at_least("trainer.steps", c.trainer.steps, 0);
  at_least("trainer.seed", c.trainer.seed, 0);
  at_least("trainer.checkpoint_every", c.trainer.checkpoint_every, 0);
  at_least("trainer.keep_last", c.trainer.keep_last, 1);
  at_least("eval.every", c.eval.every, -1);
  at_least("eval.pairs", c.eval.pairs, 0);
  TEMPER_CHECK(std::isfinite(c.trainer.epochs) && c.trainer.epochs > 0,
               "trainer.epochs must be above 0, got ", c.trainer.epochs);
  TEMPER_CHECK(c.data.held_out_fraction >= 0 && c.data.held_out_fraction < 1,
               "data.held_out_fraction must be in [0, 1), got ", c.data.held_out_fraction);
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
  PreferenceData train = read_preferences(c.data.path, read), held_out;
  if (!c.data.eval_path.empty()) {
    held_out = read_preferences(c.data.eval_path, read);
  } else if (c.data.held_out_fraction > 0) {
    std::tie(train, held_out) =
        split_by_hash(train, c.data.held_out_fraction, static_cast<uint64_t>(c.trainer.seed));
  }
  RewardData out;
  out.train = tokenize_pairs(train, text, c.data.max_length);
  if (held_out.pairs.empty()) return out;
  out.held_out = tokenize_pairs(held_out, text, c.data.max_length);
  auto& pairs = out.held_out.pairs;
  if (c.eval.pairs > 0 && std::cmp_less(c.eval.pairs, pairs.size())) {
    pairs.resize(static_cast<size_t>(c.eval.pairs));
  }
  return out;
}

RewardTrainer::Parts trainer_parts(const RewardRunConfig& c, TokenizedPairs train) {
  RewardTrainer::Parts p;
  p.config = c.reward;
  p.optimizer = c.optimizer;
  p.schedule = c.schedule;
  p.data = std::move(train);
  p.seed = static_cast<uint64_t>(c.trainer.seed);
  const double pairs = static_cast<double>(p.data.pairs.size());
  const double per_step = static_cast<double>(c.reward.pairs_per_step);
  p.total_steps = c.trainer.steps > 0
                      ? c.trainer.steps
                      : static_cast<int64_t>(std::ceil(c.trainer.epochs * pairs / per_step));
  return p;
}

/// A reward trainer with its held-out pairs, as a loop sees it.
class RewardLoop final : public LoopTrainer {
 public:
  RewardLoop(RewardTrainer& trainer, const TokenizedPairs& held_out, bool save_merged)
      : trainer_(trainer), held_out_(held_out), save_merged_(save_merged) {}
  int64_t steps_done() const override { return trainer_.steps_done(); }
  int64_t total_steps() const override { return trainer_.total_steps(); }
  double epoch() const override { return trainer_.epoch(); }
  Metrics step() override { return trainer_.step(); }
  std::optional<HeldOutScore> evaluate() override {
    if (held_out_.pairs.empty()) return std::nullopt;
    const PairEvaluation e = trainer_.evaluate(held_out_.pairs);
    return HeldOutScore{e.correct, e.count, e.metrics};
  }
  double goodness(const HeldOutScore& score) const override {
    return static_cast<double>(score.correct);
  }
  void save(const fs::path& folder) const override { trainer_.save(folder); }
  uint64_t checkpoint_bytes() const override { return trainer_.checkpoint_bytes(); }
  fs::path save_model(const fs::path& run) const override {
    const bool adapted = trainer_.model().backbone().adapter() != nullptr;
    if (adapted) trainer_.model().save_adapter(run / "adapter");
    if (adapted && !save_merged_) return run / "adapter";
    trainer_.model().save(run / "model");
    return run / "model";
  }

 private:
  RewardTrainer& trainer_;
  const TokenizedPairs& held_out_;
  bool save_merged_;  ///< A model under an adapter as a whole too.
};

std::string model_line(const RewardRunConfig& c, const RewardModel& model) {
  int64_t parameters = 0;
  for (const auto& p : model.backbone().parameters()) parameters += p->n * p->k;
  return concat(c.model, ", ", static_cast<double>(parameters) / 1e6, " M parameters",
                c.reward.freeze_backbone ? " (frozen) " : " ", "and a reward head, ",
                c.trainer.weights, c.trainer.kernels == "cpu" ? "" : ", reference kernels");
}

RunResult run(const RewardRunConfig& c, const RunOptions& options) {
  const auto checkpoint = find_checkpoint(options);
  RewardModel model = load_model(c, checkpoint);
  RewardData data = read_data(c, model.text());
  RewardTrainer trainer(model, trainer_parts(c, std::move(data.train)));
  if (checkpoint) trainer.load(checkpoint->folder);
  RewardLoop loop(trainer, data.held_out, c.adapter.save_merged);
  LoopSettings settings{c.eval.every,         c.trainer.checkpoint_every, c.trainer.keep_last,
                        c.trainer.keep_best,  c.trainer.save_model,       config_text(c),
                        model_line(c, model), data.held_out.source,       c.trainer.weights,
                        c.trainer.kernels, c.diagnosis};
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
  const std::string length = c.trainer.steps > 0
                                 ? concat(c.trainer.steps, " optimizer steps")
                                 : concat(c.trainer.epochs, " passes over the pairs");
  return concat("Trains for ", length, ", ", c.reward.pairs_per_step,
                " pairs a step, each side at most ", c.data.max_length,
                " tokens, in micro-batches of at most ", c.reward.micro_batch_tokens, " tokens.");
}

RunResult train_reward(const RewardRunConfig& config, const RunOptions& options) {
  TEMPER_CHECK(!config.model.empty(),
               "no model was named: give --model or the config key \"model\"");
  TEMPER_CHECK(!options.output.empty(), "no output folder was named: give --output");
  TEMPER_CHECK(!config.data.path.empty(), "no pairs were named: give the config key \"data.path\"");
  check_settings(config);
  if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
  const ops::KernelScope kernels(config.trainer.kernels);
  return run(config, options);
}

}  // namespace temper
