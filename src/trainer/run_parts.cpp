#include "run_parts.h"

#include "temper/reward/timeout.h"

namespace temper {

void check_named(const std::string& model, const std::filesystem::path& output) {
  TEMPER_CHECK(!model.empty(), "no model was named: give --model or the config key \"model\"");
  TEMPER_CHECK(!output.empty(), "no output folder was named: give --output");
}

void check_length(const RewardRunLength& trainer, const RewardEvalConfig& eval,
                  double held_out_fraction) {
  check_at_least("trainer.steps", trainer.steps, 0);
  check_at_least("trainer.seed", trainer.seed, 0);
  check_at_least("trainer.checkpoint_every", trainer.checkpoint_every, 0);
  check_at_least("trainer.keep_last", trainer.keep_last, 1);
  check_at_least("eval.every", eval.every, -1);
  check_at_least("eval.pairs", eval.pairs, 0);
  TEMPER_CHECK(std::isfinite(trainer.epochs) && trainer.epochs > 0,
               "trainer.epochs must be above 0, got ", trainer.epochs);
  TEMPER_CHECK(held_out_fraction >= 0 && held_out_fraction < 1,
               "data.held_out_fraction must be in [0, 1), got ", held_out_fraction);
}

void check_length(const TrainerConfig& trainer) {
  check_at_least("trainer.steps", trainer.steps, 1);
  check_at_least("trainer.seed", trainer.seed, 0);
  check_at_least("trainer.checkpoint_every", trainer.checkpoint_every, 0);
  check_at_least("trainer.keep_last", trainer.keep_last, 1);
  check_at_least("trainer.samples_per_step", trainer.samples_per_step, 0);
}

int64_t steps_of(const RewardRunLength& trainer, size_t rows, int64_t rows_per_step) {
  if (trainer.steps > 0) return trainer.steps;
  return static_cast<int64_t>(std::ceil(trainer.epochs * static_cast<double>(rows) /
                                        static_cast<double>(rows_per_step)));
}

std::string length_in_words(const RewardRunLength& trainer, const char* rows) {
  return trainer.steps > 0 ? concat(trainer.steps, " optimizer steps")
                           : concat(trainer.epochs, " passes over the ", rows);
}

std::string model_line(const std::string& spec, const CausalLM& model, const std::string& more,
                       const std::string& weights, const std::string& kernels) {
  int64_t parameters = 0;
  for (const auto& p : model.parameters()) parameters += p->n * p->k;
  return concat(spec, ", ", static_cast<double>(parameters) / 1e6, " M parameters", more, ", ",
                weights, kernels == "cpu" ? "" : ", reference kernels");
}

std::string model_line(const std::string& spec, const PolicyModel& policy,
                       const std::string& weights, const std::string& kernels) {
  const std::string adapter = adapter_line(policy);
  return model_line(spec, policy.lm(), adapter.empty() ? "" : ", " + adapter, weights, kernels);
}

std::optional<HeldOutScore> HeldOutPrompts::evaluate(PolicyModel& policy,
                                                     const OnlineRunConfig& config,
                                                     int64_t step) const {
  if (examples.empty() || rewards.empty()) return std::nullopt;
  const auto ask = [&](double temperature) {
    RolloutConfig rollout = config.rollout;
    rollout.temperature = temperature;
    try {
      return temper::evaluate(policy, examples, rewards, rollout,
                              static_cast<uint64_t>(config.trainer.seed),
                              static_cast<uint32_t>(step));
    } catch (const RewardTimeout& e) {
      throw e.at(concat("the evaluation after step ", step));
    }
  };
  EvalResult e = ask(config.eval.temperature);
  if (config.eval.greedy_too) {
    for (const auto& [name, value] : ask(0).metrics) {
      e.metrics["eval/greedy" + name.substr(std::string_view("eval").size())] = value;
    }
  }
  return HeldOutScore{e.correct, e.count, e.metrics};
}

}  // namespace temper
