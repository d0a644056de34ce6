// What the runs of all trainers have in common besides their loop: checks of their settings, the
// beginning that each makes, the lines that it says of itself.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/data/dataset.h"
#include "temper/nn/models.h"
#include "temper/trainer/adapter_run.h"
#include "temper/trainer/evaluation.h"
#include "temper/trainer/reward_run.h"
#include "temper/trainer/run_config.h"
#include "training_loop.h"

namespace temper {

/// @throws Error naming the key.
inline void check_at_least(const char* key, int64_t value, int64_t least) {
  TEMPER_CHECK(value >= least, key, " must be at least ", least, ", got ", value);
}

/// What every run needs before anything is loaded. @throws Error.
void check_named(const std::string& model, const std::filesystem::path& output);

/// Settings of a run over rows of a file. @throws Error naming the key.
void check_length(const RewardRunLength& trainer, const RewardEvalConfig& eval,
                  double held_out_fraction);
/// Settings of a run over prompts. @throws Error naming the key.
void check_length(const TrainerConfig& trainer);

/// Optimizer steps of a run over `rows` rows.
[[nodiscard]] int64_t steps_of(const RewardRunLength& trainer, size_t rows, int64_t rows_per_step);
/// "100 optimizer steps", or "2 passes over the rows".
[[nodiscard]] std::string length_in_words(const RewardRunLength& trainer, const char* rows);

/// "model.gguf, 134.5 M parameters<more>, bfloat16". @param more  what else there is to say of it.
[[nodiscard]] std::string model_line(const std::string& spec, const CausalLM& model,
                                     const std::string& more, const std::string& weights,
                                     const std::string& kernels);
/// The same of a policy, with its adapter if it has one.
[[nodiscard]] std::string model_line(const std::string& spec, const PolicyModel& policy,
                                     const std::string& weights, const std::string& kernels);

/// Rows to train on and rows never trained on: a file of their own, or a share of the prompts.
/// @param read  path to data of which `split_by_hash` makes two.
template <class DataConfig, class Read>
[[nodiscard]] auto read_parts(const DataConfig& config, int64_t seed, const Read& read) {
  auto train = read(config.path);
  decltype(train) held_out;
  if (!config.eval_path.empty()) {
    held_out = read(config.eval_path);
  } else if (config.held_out_fraction > 0) {
    auto parts = split_by_hash(train, config.held_out_fraction, static_cast<uint64_t>(seed));
    train = std::move(parts.first);
    held_out = std::move(parts.second);
  }
  return std::pair(std::move(train), std::move(held_out));
}

/// The first `most` rows; 0: all.
template <class Rows>
void keep_first(Rows& rows, int64_t most) {
  if (most > 0 && std::cmp_less(most, rows.size())) rows.resize(static_cast<size_t>(most));
}

/// How a loop is to run, by a run's configuration. @param text  the complete one.
template <class Config>
[[nodiscard]] LoopSettings loop_settings(const Config& c, std::string text, std::string model,
                                         std::string eval_data) {
  LoopSettings s;
  s.eval_every = c.eval.every;
  s.checkpoint_every = c.trainer.checkpoint_every;
  s.keep_last = c.trainer.keep_last;
  s.keep_best = c.trainer.keep_best;
  s.save_model = c.trainer.save_model;
  s.config = std::move(text);
  s.model = std::move(model);
  s.eval_data = std::move(eval_data);
  s.numerics = {{"weights", c.trainer.weights}, {"kernels", c.trainer.kernels}};
  if constexpr (requires { c.trainer.reference_weights; }) {
    s.numerics.emplace_back("reference_weights", c.trainer.reference_weights);
  }
  s.diagnosis = c.diagnosis;
  return s;
}

/// What a loop asks and any trainer answers alike.
template <class Trainer>
class TrainerLoop : public LoopTrainer {
 public:
  explicit TrainerLoop(Trainer& trainer) : trainer_(trainer) {}
  [[nodiscard]] int64_t steps_done() const override { return trainer_.steps_done(); }
  [[nodiscard]] int64_t total_steps() const override { return trainer_.total_steps(); }
  [[nodiscard]] double epoch() const override { return trainer_.epoch(); }
  void save(const std::filesystem::path& folder) const override { trainer_.save(folder); }
  [[nodiscard]] uint64_t checkpoint_bytes() const override { return trainer_.checkpoint_bytes(); }

 protected:
  Trainer& trainer_;
};

/// Held-out prompts of a run, with the rewards that score their answers.
struct HeldOutPrompts {
  std::vector<Example> examples;
  std::vector<NamedReward> rewards;

  /// One answer each at the run's temperature, and greedily besides if that is asked; nothing
  /// without prompts or rewards. @throws RewardTimeout, saying after which step.
  [[nodiscard]] std::optional<HeldOutScore> evaluate(PolicyModel& policy,
                                                     const OnlineRunConfig& config,
                                                     int64_t step) const;
};

}  // namespace temper
