#include "temper/trainer/reward_run.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>

#include "stopwatch.h"
#include "temper/core/config.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/log.h"
#include "temper/core/threads.h"
#include "temper/trainer/report.h"
#include "temper/trainer/run_folder.h"
#include "temper/version.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// The checkpoint to go on from. Makes no folder; one that cannot be used is refused here, before a
/// model is loaded.
std::optional<Checkpoint> find_checkpoint(const RunOptions& o) {
  if (!o.resume) {
    RunFolder::check_unused(o.output);
    return std::nullopt;
  }
  if (!fs::exists(o.output)) return std::nullopt;
  return newest_complete_checkpoint(RunFolder::resume(o.output).path());
}

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
  TEMPER_CHECK(!c.reward.freeze_backbone || c.trainer.weights == "float32",
               "reward.freeze_backbone needs trainer.weights=float32: a frozen backbone in 16 bits "
               "keeps no float32 weights to save");
  c.reward.validate();
}

/// A reward model as it stands, or a language model under a new head.
RewardModel load_model(const RewardRunConfig& c, const std::optional<Checkpoint>& checkpoint) {
  const WeightDType dtype = parse_weight_dtype(c.trainer.weights);
  const Trainable trainable = c.reward.freeze_backbone ? Trainable::kNo : Trainable::kYes;
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

/// One call of `train_reward`.
class RewardRun {
 public:
  RewardRun(const RewardRunConfig& config, const RunOptions& options)
      : config_(config),
        options_(options),
        checkpoint_(find_checkpoint(options)),
        model_(load_model(config, checkpoint_)),
        data_(read_data(config, model_.text())),
        trainer_(model_, parts()),
        folder_(options.resume ? RunFolder::resume(options.output)
                               : RunFolder::create(options.output)) {
    if (checkpoint_) restore();
  }

  RunResult train() {
    folder_.write_config(config_text(config_));
    const RunInfo info{folder_.path(),        config_text(config_), trainer_.total_steps(),
                       trainer_.steps_done(), model_line(),         TEMPER_VERSION};
    each([&](Observer& o) { o.on_start(info); });
    const Stopwatch watch;
    if (trainer_.steps_done() == 0 && config_.eval.every >= 0) result_.before = run_eval();
    while (trainer_.steps_done() < trainer_.total_steps() && result_.reason.empty()) one_step();
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
  RewardTrainer::Parts parts() const {
    RewardTrainer::Parts p;
    p.config = config_.reward;
    p.optimizer = config_.optimizer;
    p.schedule = config_.schedule;
    p.data = data_.train;
    p.seed = static_cast<uint64_t>(config_.trainer.seed);
    const double pairs = static_cast<double>(p.data.pairs.size());
    const double per_step = static_cast<double>(config_.reward.pairs_per_step);
    p.total_steps =
        config_.trainer.steps > 0
            ? config_.trainer.steps
            : static_cast<int64_t>(std::ceil(config_.trainer.epochs * pairs / per_step));
    return p;
  }

  void restore() {
    trainer_.load(checkpoint_->folder);
    const Json state =
        Json::parse(read_text_file(checkpoint_->folder / "run.json"), nullptr, false);
    TEMPER_CHECK(state.is_object(), "[resume] run.json of ", checkpoint_->folder.string(),
                 " is damaged");
    for (const auto& [key, now] : {std::pair("weights", &config_.trainer.weights),
                                   std::pair("kernels", &config_.trainer.kernels)}) {
      const std::string then = state.value(key, *now);
      TEMPER_CHECK(then == *now || options_.force, "[resume] trainer.", key, " is ", *now,
                   " but the checkpoint was trained with ", then, ": set trainer.", key, "=", then,
                   ", or use --force to go on with other numbers");
    }
    best_score_ = state.value("best_score", best_score_);
    best_step_ = state.value("best_step", best_step_);
    log_info("resuming after step ", trainer_.steps_done(), " of ", trainer_.total_steps());
  }

  void each(const std::function<void(Observer&)>& call) const {
    for (const auto& o : options_.observers) call(*o);
  }

  std::string model_line() const {
    int64_t parameters = 0;
    for (const auto& p : model_.backbone().parameters()) parameters += p->n * p->k;
    return concat(config_.model, ", ", static_cast<double>(parameters) / 1e6, " M parameters",
                  config_.reward.freeze_backbone ? " (frozen) " : " ", "and a reward head, ",
                  config_.trainer.weights,
                  config_.trainer.kernels == "cpu" ? "" : ", reference kernels");
  }

  HeldOutScore run_eval() {
    if (data_.held_out.pairs.empty()) return {};
    const Stopwatch watch;
    const PairEvaluation e = trainer_.evaluate(data_.held_out.pairs);
    const EvalEvent event{trainer_.steps_done(),
                          data_.held_out.source,
                          e.correct,
                          e.count,
                          watch.seconds(),
                          e.metrics};
    each([&](Observer& o) { o.on_eval(event); });
    return {e.correct, e.count, e.metrics};
  }

  void one_step() {
    const Metrics metrics = trainer_.step();
    const double seconds = metrics.at("step_time");
    result_.train_seconds += seconds;
    const StepEvent event{
        trainer_.steps_done(), trainer_.total_steps(), seconds, trainer_.epoch(), metrics, {}};
    each([&](Observer& o) { o.on_step(event); });
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
    const Json state{{"best_score", best_score_},
                     {"best_step", best_step_},
                     {"weights", config_.trainer.weights},
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
    result_.model = folder_.path() / "model";
    model_.save(result_.model);
  }

  const RewardRunConfig& config_;
  const RunOptions& options_;
  std::optional<Checkpoint> checkpoint_;
  RewardModel model_;
  RewardData data_;
  RewardTrainer trainer_;
  RunFolder folder_;  // Made last: a wrong setting leaves no half-made folder.
  RunResult result_;
  int64_t best_score_ = -1;
  int64_t best_step_ = 0;
};

}  // namespace

RewardRunConfig read_reward_config(const std::string& json_text, const std::string& source,
                                   const std::vector<std::string>& assignments) {
  RewardRunConfig config;
  if (!json_text.empty()) {
    Json json;
    try {
      json = Json::parse(json_text);
    } catch (const Json::parse_error& e) {
      fail(source, ": not valid JSON: ", e.what());
    }
    config_from_json(config_fields(config), json, source);
  }
  for (const auto& a : assignments) config_set(config_fields(config), a);
  return config;
}

std::string config_text(RewardRunConfig config) {
  return config_to_json(config_fields(config)).dump(2) + "\n";
}

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
  return RewardRun(config, options).train();
}

}  // namespace temper
