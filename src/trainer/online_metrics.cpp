// What a rollout says before it is trained on, under the names that TRL, its PPO and verl use.
#include <algorithm>
#include <bit>
#include <cmath>
#include <span>

#include "temper/trainer/online.h"

namespace temper {
namespace {

/// Smallest, mean and largest of the finite values; nothing where there is none.
template <class T>
void summarize(Metrics& m, const std::string& name, std::span<const T> values) {
  double sum = 0, low = HUGE_VAL, high = -HUGE_VAL, count = 0;
  for (const T v : values) {
    const double x = static_cast<double>(v);
    if (!std::isfinite(x)) continue;
    sum += x;
    low = std::min(low, x);
    high = std::max(high, x);
    count += 1;
  }
  if (count == 0) return;
  m[name + "/mean"] = sum / count;
  m[name + "/max"] = high;
  m[name + "/min"] = low;
}

double mean_of(std::span<const double> values) {
  double sum = 0, count = 0;
  for (const double v : values) {
    if (std::isnan(v)) continue;
    sum += v;
    count += 1;
  }
  return count > 0 ? sum / count : 0;
}

}  // namespace

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

/// Of the KL to the reference: by completion, and by the tokens' place in 1, 2, 3-4, 5-8, ...: a
/// policy that drifts in its first words differs from one that drifts at its end.
void OnlineTrainer::kl_metrics(Rollout& r) const {
  if (r.ref_logprobs.empty()) return;
  Metrics& m = r.metrics;
  std::vector<double> sums, by_place, places;
  size_t token = 0;
  for (const Sample& s : r.samples) {
    sums.push_back(0);
    for (size_t t = 0; t < s.ids.size(); ++t, ++token) {
      const double kl = double{s.logprobs[t]} - double{r.ref_logprobs[token]};
      sums.back() += kl;
      const auto bucket = static_cast<size_t>(std::bit_width(t));
      if (by_place.size() <= bucket) {
        by_place.resize(bucket + 1);
        places.resize(bucket + 1);
      }
      by_place[bucket] += kl;
      places[bucket] += 1;
    }
  }
  m["objective/kl"] = mean_of(sums);
  for (size_t b = 0; b < by_place.size(); ++b) {
    const size_t last = size_t{1} << b;
    m["kl/token_" + std::to_string(b == 0 ? 1 : last / 2 + 1) + "_to_" + std::to_string(last)] =
        by_place[b] / places[b];
  }
}

void OnlineTrainer::token_metrics(Rollout& r) const {
  kl_metrics(r);
  const Advantages& a = r.advantages;
  if (!parts_.critic) return;
  Metrics& m = r.metrics;
  const double count = static_cast<double>(r.samples.size());
  double surprise = 0, ended = 0;
  for (const Sample& s : r.samples) {
    for (const float lp : s.logprobs) surprise -= double{lp};
    ended += s.finish == Finish::kLength ? 0.0 : 1.0;
  }
  m["objective/entropy"] = surprise / count;
  m["objective/scores"] = a.reward_mean;
  m["objective/rlhf_reward"] = mean_of(a.shaped_rewards);
  m["objective/non_score_reward"] = -kl_.coef() * mean_of(a.kl_sums);
  m["val/num_eos_tokens"] = ended;
  m["episode"] = static_cast<double>(r.step + 1) * count;
  summarize<double>(m, "critic/score", a.rewards);
  summarize<double>(m, "critic/rewards", a.shaped_rewards);
  summarize<float>(m, "critic/advantages", a.tokens);
  summarize<float>(m, "critic/returns", a.returns);
  summarize<float>(m, "critic/values", r.values);
  if (const auto share = explained_variance(r.values, a.returns)) m["critic/vf_explained_var"] = *share;
}

}  // namespace temper
