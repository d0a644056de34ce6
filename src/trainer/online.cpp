#include "temper/trainer/online.h"

#include <algorithm>
#include <cmath>

#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/trainer/evaluation.h"

namespace temper {

void OnlineConfig::validate() const {
  const auto check = [](bool ok, const char* key, const char* range, auto got) {
    TEMPER_CHECK(ok, "grpo.", key, " must be ", range, ", got ", got);
  };
  check(group_size >= 2, "group_size", "at least 2", group_size);
  check(prompts_per_step >= 1, "prompts_per_step", "at least 1", prompts_per_step);
  check(iterations >= 1, "iterations", "at least 1", iterations);
  check(minibatches >= 1 && minibatches <= prompts_per_step, "minibatches",
        "between 1 and grpo.prompts_per_step", minibatches);
  check(micro_batch_tokens >= 1, "micro_batch_tokens", "at least 1", micro_batch_tokens);
  check(top_entropy_quantile > 0 && top_entropy_quantile <= 1, "top_entropy_quantile", "in (0, 1]",
        top_entropy_quantile);
  check(ref_sync_every >= 0, "ref_sync_every", "at least 0", ref_sync_every);
  check(ref_sync_mix > 0 && ref_sync_mix <= 1, "ref_sync_mix", "in (0, 1]", ref_sync_mix);
}

OnlineTrainer::OnlineTrainer(PolicyModel& policy, Parts parts)
    : policy_(policy), parts_(std::move(parts)),
      engine_(policy.lm(), policy.text(), parts_.rollout),
      optimizer_(policy.lm().parameter_list(), parts_.optimizer),
      sampler_(parts_.prompts.examples.size(), parts_.seed) {
  parts_.config.validate();
  TEMPER_CHECK(parts_.rollout.temperature > 0,
               "rollout.temperature must be above 0 for training: greedy completions of a group are equal");
  TEMPER_CHECK(!parts_.rewards.empty(), "[trainer] no reward function was given");
  TEMPER_CHECK(parts_.total_steps >= 1, "[trainer] total_steps must be at least 1, got ",
               parts_.total_steps);
  (void)learning_rate(parts_.schedule, 0, parts_.total_steps);  // Refuses a bad schedule now.
  TEMPER_CHECK(!parts_.algorithm.needs_reference || parts_.config.ref_sync_every == 0 ||
                   policy.lm().dtype() == WeightDType::kFloat32,
               "grpo.ref_sync_every needs float32 weights: a rounded reference keeps no float32 values "
               "to blend with");
  tape_.forward.checkpoint = parts_.config.gradient_checkpointing;
  if (parts_.algorithm.needs_reference) reference_ = ReferenceModel::copy_of(policy);
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

void OnlineTrainer::score(Rollout& r) {
  const Stopwatch watch;
  std::vector<Completion> completions;
  for (const Sample& s : r.samples) {
    const size_t prompt = static_cast<size_t>(s.prompt);
    completions.push_back({r.prompt_texts[prompt], s.text, s.ids, s.finish == Finish::kLength,
                           &parts_.prompts.examples[r.rows[prompt]]});
  }
  r.scores = temper::score(parts_.rewards, completions);
  const bool any = std::any_of(r.scores.values.begin(), r.scores.values.end(),
                               [](float v) { return !std::isnan(v); });
  TEMPER_CHECK(any, "[score] no completion of step ", r.step + 1, " got a score",
               r.scores.problems.empty() ? "" : ": " + r.scores.problems.front());
  r.metrics["time/reward"] = watch.seconds();
}

void OnlineTrainer::estimate_advantages(Rollout& r) {
  RewardTable table;
  table.functions = static_cast<int64_t>(parts_.rewards.size());
  table.group_size = parts_.config.group_size;
  for (const auto& reward : parts_.rewards) table.weights.push_back(reward.weight);
  table.values.assign(r.scores.values.begin(), r.scores.values.end());
  r.advantages = parts_.algorithm.advantages(table);
  rollout_metrics(r);
}

void OnlineTrainer::rollout_metrics(Rollout& r) const {
  Metrics& m = r.metrics;
  double tokens = 0, ended_tokens = 0, kept_mass = 0, entropy = 0;
  double shortest = 1e18, longest = 0, ended_shortest = 1e18, ended_longest = 0, ended = 0;
  for (const Sample& s : r.samples) {
    const double n = static_cast<double>(s.ids.size());
    tokens += n;
    shortest = std::min(shortest, n);
    longest = std::max(longest, n);
    for (const float k : s.log_kept_mass) kept_mass += std::exp(double{k});
    for (const float h : s.entropy) entropy += double{h};
    if (s.finish == Finish::kLength) continue;
    ended += 1;
    ended_tokens += n;
    ended_shortest = std::min(ended_shortest, n);
    ended_longest = std::max(ended_longest, n);
  }
  const double count = static_cast<double>(r.samples.size());
  m["completions/mean_length"] = tokens / count;
  m["completions/min_length"] = shortest;
  m["completions/max_length"] = longest;
  m["completions/clipped_ratio"] = 1.0 - ended / count;
  m["completions/mean_terminated_length"] = ended > 0 ? ended_tokens / ended : 0.0;
  m["completions/min_terminated_length"] = ended > 0 ? ended_shortest : 0.0;
  m["completions/max_terminated_length"] = ended_longest;
  m["sampling/kept_mass"] = kept_mass / tokens;
  m["entropy"] = entropy / tokens;
  m["reward"] = r.advantages.reward_mean;
  m["reward_std"] = r.advantages.reward_std;
  m["frac_reward_zero_std"] = r.advantages.frac_reward_zero_std;
  for (size_t k = 0; k < parts_.rewards.size(); ++k) {
    m["rewards/" + parts_.rewards[k].name + "/mean"] = r.advantages.function_means[k];
    m["rewards/" + parts_.rewards[k].name + "/std"] = r.advantages.function_stds[k];
  }
  double missing = 0;
  for (const float v : r.scores.values) missing += std::isnan(v) ? 1.0 : 0.0;
  m["frac_reward_nan"] = missing / static_cast<double>(r.scores.values.size());
}

Rollout OnlineTrainer::step() {
  const Stopwatch watch;
  Rollout r = rollout();
  score(r);
  estimate_advantages(r);
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
