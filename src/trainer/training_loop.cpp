#include "training_loop.h"

#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/log.h"
#include "temper/reward/timeout.h"
#include "temper/trainer/pair_source.h"
#include "temper/trainer/report.h"
#include "temper/version.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

}  // namespace

std::optional<Checkpoint> find_checkpoint(const RunOptions& o) {
  if (!o.resume) {
    RunFolder::check_unused(o.output);
    return std::nullopt;
  }
  if (!fs::exists(o.output)) return std::nullopt;
  return newest_complete_checkpoint(RunFolder::resume(o.output).path());
}

TrainingLoop::TrainingLoop(LoopTrainer& trainer, LoopSettings settings, const RunOptions& options,
                           const std::optional<Checkpoint>& checkpoint)
    : trainer_(trainer),
      settings_(std::move(settings)),
      diagnosis_(settings_.diagnosis),
      options_(options),
      folder_(options.resume ? RunFolder::resume(options.output)
                             : RunFolder::create(options.output)) {
  if (checkpoint) restore(*checkpoint);
}

void TrainingLoop::restore(const Checkpoint& checkpoint) {
  const Json state = Json::parse(read_text_file(checkpoint.folder / "run.json"), nullptr, false);
  TEMPER_CHECK(state.is_object(), "[resume] run.json of ", checkpoint.folder.string(),
               " is damaged");
  for (const auto& [key, now] : settings_.numerics) {
    const std::string then = state.value(key, now);
    TEMPER_CHECK(then == now || options_.force, "[resume] trainer.", key, " is ", now,
                 " but the checkpoint was trained with ", then, ": set trainer.", key, "=", then,
                 ", or use --force to go on with other numbers");
  }
  TEMPER_CHECK(state.contains("diagnosis"), "[resume] run.json of ", checkpoint.folder.string(),
               " is damaged");
  diagnosis_.restore(state["diagnosis"]);
  best_score_ = state.value("best_score", best_score_);
  best_step_ = state.value("best_step", best_step_);
  log_info("resuming after step ", trainer_.steps_done(), " of ", trainer_.total_steps());
}

RunResult TrainingLoop::run() {
  folder_.write_config(settings_.config);
  const RunInfo info{folder_.path(),        settings_.config, trainer_.total_steps(),
                     trainer_.steps_done(), settings_.model,  TEMPER_VERSION};
  each([&](Observer& o) { o.on_start(info); });
  const Stopwatch watch;
  train();
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

/// All steps. Where one cannot be made for want of a reward or of a difference, what the trainer has is
/// kept: as far as it is concerned the step was not begun.
void TrainingLoop::train() {
  try {
    if (trainer_.steps_done() == 0 && settings_.eval_every >= 0) result_.before = run_eval();
    while (trainer_.steps_done() < trainer_.total_steps() && result_.reason.empty()) one_step();
  } catch (const NothingToLearn& e) {
    if (trainer_.steps_done() == 0) throw;
    result_.reason = e.what();
    checkpoint();
  } catch (const RewardTimeout&) {
    if (trainer_.steps_done() > 0) checkpoint();
    throw;
  }
}

void TrainingLoop::each(const std::function<void(Observer&)>& call) const {
  for (const auto& o : options_.observers) call(*o);
}

HeldOutScore TrainingLoop::run_eval() {
  const Stopwatch watch;
  const std::optional<HeldOutScore> score = trainer_.evaluate();
  if (!score) return {};
  const EvalEvent event{trainer_.steps_done(), settings_.eval_data, score->correct,
                        score->count,          watch.seconds(),     score->metrics};
  each([&](Observer& o) { o.on_eval(event); });
  return *score;
}

void TrainingLoop::one_step() {
  const Metrics metrics = trainer_.step();
  const double seconds = metrics.at("step_time");
  result_.train_seconds += seconds;
  const StepEvent event{
      trainer_.steps_done(), trainer_.total_steps(), seconds, trainer_.epoch(), metrics,
      trainer_.samples()};
  each([&](Observer& o) { o.on_step(event); });
  for (const Alarm& alarm : diagnosis_.check(trainer_.steps_done(), metrics)) {
    each([&](Observer& o) { o.on_alarm(alarm); });
    if (alarm.stop) result_.reason = alarm.sentence;
  }
  if (options_.stop_requested && options_.stop_requested()) result_.reason = "stopped on request";
  after_step();
}

void TrainingLoop::after_step() {
  const int64_t step = trainer_.steps_done();
  const bool last = step == trainer_.total_steps();
  bool best = false;
  if (settings_.eval_every > 0 && step % settings_.eval_every == 0 && !last) {
    const HeldOutScore score = run_eval();
    const double now = score.metrics.empty() ? 0 : trainer_.goodness(score);
    if (!score.metrics.empty() && (best_step_ == 0 || now > best_score_)) {
      best_score_ = now;
      best_step_ = step;
      best = settings_.keep_best;
    }
  }
  const int64_t every = settings_.checkpoint_every;
  const bool due = every > 0 && (step % every == 0 || last);
  if (due || best || !result_.reason.empty()) checkpoint();
}

void TrainingLoop::checkpoint() {
  CheckpointWriter writer = folder_.begin(trainer_.steps_done(), trainer_.checkpoint_bytes());
  trainer_.save(writer.folder());
  Json state{{"diagnosis", diagnosis_.state()},
             {"best_score", best_score_},
             {"best_step", best_step_}};
  for (const auto& [key, value] : settings_.numerics) state[key] = value;
  write_file_atomically(writer.folder() / "run.json", state.dump(2) + "\n");
  const fs::path done = writer.commit();
  each([&](Observer& o) { o.on_checkpoint(trainer_.steps_done(), done); });
  const bool best = settings_.keep_best && best_step_ > 0;
  folder_.keep_last(settings_.keep_last, best ? std::optional(best_step_) : std::nullopt);
}

void TrainingLoop::finish() {
  if (settings_.eval_every >= 0) result_.after = run_eval();
  if (settings_.save_model) result_.model = trainer_.save_model(folder_.path());
}

}  // namespace temper
