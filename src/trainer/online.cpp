#include "temper/trainer/online.h"

#include <algorithm>
#include <cmath>

#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/reward/timeout.h"
#include "temper/trainer/adapter_run.h"
#include "temper/trainer/evaluation.h"

namespace temper {

void OnlineConfig::validate(std::string_view section) const {
  const auto check = [&](bool ok, const char* key, const char* range, auto got) {
    TEMPER_CHECK(ok, section, ".", key, " must be ", range, ", got ", got);
  };
  check(group_size >= 1, "group_size", "at least 1", group_size);
  check(prompts_per_step >= 1, "prompts_per_step", "at least 1", prompts_per_step);
  check(iterations >= 1, "iterations", "at least 1", iterations);
  check(minibatches >= 1 && minibatches <= prompts_per_step, "minibatches",
        "between 1 and prompts_per_step", minibatches);
  check(micro_batch_tokens >= 1, "micro_batch_tokens", "at least 1", micro_batch_tokens);
  check(top_entropy_quantile > 0 && top_entropy_quantile <= 1, "top_entropy_quantile", "in (0, 1]",
        top_entropy_quantile);
  check(ref_sync_every >= 0, "ref_sync_every", "at least 0", ref_sync_every);
  check(ref_sync_mix > 0 && ref_sync_mix <= 1, "ref_sync_mix", "in (0, 1]", ref_sync_mix);
}

OnlineTrainer::OnlineTrainer(PolicyModel& policy, Parts parts)
    : policy_(policy), parts_(std::move(parts)),
      engine_(policy.lm(), policy.text(), parts_.rollout),
      optimizer_(policy.lm().parameter_list(), parts_.optimizer, parts_.seed),
      sampler_(parts_.prompts.examples.size(), parts_.seed),
      kl_(parts_.algorithm.kl.controller, parts_.algorithm.initial_kl_coef()) {
  parts_.config.validate(parts_.algorithm.name);
  TEMPER_CHECK(parts_.config.group_size >= 2 || !parts_.algorithm.compares_group, parts_.algorithm.name,
               ".group_size must be at least 2: rewards are compared within a group, got ",
               parts_.config.group_size);
  TEMPER_CHECK(parts_.rollout.temperature > 0,
               "rollout.temperature must be above 0 for training: greedy completions of a group are equal");
  TEMPER_CHECK(!parts_.rewards.empty(), "[trainer] no reward function was given");
  TEMPER_CHECK(parts_.total_steps >= 1, "[trainer] total_steps must be at least 1, got ",
               parts_.total_steps);
  (void)learning_rate(parts_.schedule, 0, parts_.total_steps);  // Refuses a bad schedule now.
  TEMPER_CHECK(policy.lm().adapter() == nullptr || parts_.config.ref_sync_every == 0,
               parts_.algorithm.name, ".ref_sync_every moves the reference, and an adapter's is the "
               "frozen model under it: leave it at 0");
  TEMPER_CHECK(!parts_.algorithm.needs_reference || parts_.config.ref_sync_every == 0 ||
                   reference_dtype() == WeightDType::kFloat32,
               parts_.algorithm.name, ".ref_sync_every needs trainer.reference_weights=float32: a rounded "
               "reference keeps no float32 values to blend with");
  tape_.forward.checkpoint = parts_.config.gradient_checkpointing;
  if (!parts_.algorithm.needs_reference) return;
  if (parts_.reference) {
    TEMPER_CHECK(parts_.config.ref_sync_every == 0 || !parts_.reference->lm().mapped(),
                 parts_.algorithm.name, ".ref_sync_every moves the reference, and a mapped file cannot "
                 "be changed: leave it at 0 or trainer.reference_file empty");
    set_reference(*parts_.reference);
  } else {
    reference_ = run_reference(policy, reference_dtype());
    reference_given_ = policy.lm().adapter() != nullptr;  // No training moves it.
  }
}

WeightDType OnlineTrainer::reference_dtype() const {
  return parts_.reference_weights.value_or(policy_.lm().dtype());
}

double OnlineTrainer::epoch() const {
  return static_cast<double>(state_.step * parts_.config.prompts_per_step) /
         static_cast<double>(parts_.prompts.examples.size());
}

Rollout OnlineTrainer::rollout() {
  const Stopwatch watch;
  Rollout r;
  r.step = state_.step;
  r.rows = sampler_.next(static_cast<size_t>(parts_.config.prompts_per_step));
  for (const size_t row : r.rows) {
    EncodedPrompt prompt = encode_prompt(parts_.prompts.examples[row], policy_.text());
    r.prompt_texts.push_back(std::move(prompt.text));
    r.request.prompts.push_back(std::move(prompt.ids));
  }
  r.request.group_size = parts_.config.group_size;
  r.request.seed = parts_.seed;
  r.request.step = static_cast<uint32_t>(state_.step);
  r.samples = engine_.generate(r.request);
  r.stats = engine_.stats();
  r.metrics["time/rollout"] = watch.seconds();
  r.metrics["rollout/tokens_per_second"] =
      static_cast<double>(r.stats.completion_tokens) / std::max(1e-9, watch.seconds());
  return r;
}

std::vector<Completion> OnlineTrainer::completions_of(const Rollout& r,
                                                      std::span<const Sample> samples) const {
  std::vector<Completion> out;
  for (const Sample& s : samples) {
    const size_t prompt = static_cast<size_t>(s.prompt);
    out.push_back({r.prompt_texts[prompt], s.text, s.ids, s.finish == Finish::kLength,
                   &parts_.prompts.examples[r.rows[prompt]]});
  }
  return out;
}

RewardScores OnlineTrainer::score_in_time(const Rollout& r, std::span<const Sample> samples) const {
  try {
    return temper::score(parts_.rewards, completions_of(r, samples));
  } catch (const RewardTimeout& e) {
    throw e.at(concat("step ", r.step + 1));
  }
}

void OnlineTrainer::score(Rollout& r) {
  const Stopwatch watch;
  r.scores = score_in_time(r, r.samples);
  const bool any = std::any_of(r.scores.values.begin(), r.scores.values.end(),
                               [](float v) { return !std::isnan(v); });
  TEMPER_CHECK(any, "[score] no completion of step ", r.step + 1, " got a score",
               r.scores.problems.empty() ? "" : ": " + r.scores.problems.front());
  r.metrics["time/reward"] = watch.seconds();
}

void OnlineTrainer::estimate_advantages(Rollout& r) {
  measure(r);
  if (parts_.algorithm.needs_greedy) greedy(r);
  RewardTable table = reward_table(r);
  const TokenTable tokens = token_table(r, table);
  table.tokens = &tokens;
  r.advantages = parts_.algorithm.advantages(table);
  if (parts_.critic) parts_.critic->observe_returns(r.advantages.returns);
  rollout_metrics(r);
  token_metrics(r);
}

Rollout OnlineTrainer::step() {
  const Stopwatch watch;
  const PromptSampler::State before = sampler_.state();
  Rollout r;
  try {
    r = rollout();
    score(r);
    estimate_advantages(r);
  } catch (const RewardTimeout&) {
    sampler_.restore(before);  // Nothing else has moved: the step can be made again.
    throw;
  }
  update(r);
  r.metrics["step_time"] = watch.seconds();
  return r;
}

std::vector<SampleCompletion> OnlineTrainer::describe(const Rollout& r, size_t count) const {
  std::vector<SampleCompletion> out;
  for (size_t i = 0; i < std::min(count, r.samples.size()); ++i) {
    // Spread over the prompts: the first of each group, then the second of each, and so on.
    const size_t prompts = r.rows.size();
    const size_t at = i % prompts * static_cast<size_t>(r.request.group_size) + i / prompts;
    const Sample& s = r.samples[at];
    SampleCompletion c{r.step + 1, r.prompt_texts[static_cast<size_t>(s.prompt)], s.text, {},
                       r.advantages.values[at], std::ssize(s.ids), s.finish == Finish::kLength};
    for (size_t k = 0; k < parts_.rewards.size(); ++k) {
      c.rewards.emplace_back(parts_.rewards[k].name, double{r.scores.at(at, k)});
    }
    out.push_back(std::move(c));
  }
  return out;
}

}  // namespace temper
