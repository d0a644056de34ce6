#include "temper/trainer/diagnosis.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kAll = 0.999;          // a share that counts as all, rounding aside
constexpr double kFlat = 1e-6;          // rewards closer than this do not differ
constexpr double kZeroLoss = 5e-3;      // a loss that a reader would call 0
constexpr double kGradMemory = 0.9;     // of the moving mean of the gradient norm
constexpr double kLeastEntropy = 0.01;  // nats; below it a share of the start means nothing
constexpr double kHighEntropy = 1.0;    // nats; below it no multiple is an explosion

std::optional<double> find(const Metrics& metrics, const char* name) {
  const auto it = metrics.find(name);
  if (it == metrics.end()) return std::nullopt;
  return it->second;
}

/// Like `find`, but a value that is not finite counts as not measured.
std::optional<double> find_finite(const Metrics& metrics, const char* name) {
  const auto value = find(metrics, name);
  return value && std::isfinite(*value) ? value : std::nullopt;
}

/// All completions cut off and no difference in reward: the length limit hides every answer.
bool is_truncated_and_flat(const Metrics& m, std::optional<double> reward_before) {
  const auto cut = find(m, "completions/clipped_ratio");
  if (!cut || *cut < kAll) return false;
  if (const auto dead = find_finite(m, "frac_reward_zero_std")) return *dead >= kAll;
  const auto reward = find(m, "reward");
  return reward && reward_before && std::abs(*reward - *reward_before) < kFlat;
}

bool is_note(std::string_view kind) { return kind.starts_with("note/"); }

/// Three digits: what a sentence needs.
std::string num(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3g", value);
  return text.data();
}

double mean(double sum, int64_t count) { return sum / static_cast<double>(count); }

}  // namespace

Diagnosis::Diagnosis(DiagnosisConfig config) : config_(std::move(config)) {
  TEMPER_CHECK(config_.action == "warn" || config_.action == "stop",
               "[diagnosis] action must be warn or stop, got \"", config_.action, "\"");
  TEMPER_CHECK(config_.patience >= 1 && config_.stop_after >= 1 && config_.start_steps >= 1 &&
                   config_.negative_kl_steps >= 1,
               "[diagnosis] patience, stop_after, start_steps and negative_kl_steps must be at "
               "least 1");
  for (const double limit :
       {config_.dead_groups_share, config_.kl_limit, config_.kl_growth, config_.entropy_collapse,
        config_.entropy_explosion, config_.grad_spike, config_.length_growth}) {
    TEMPER_CHECK(limit > 0, "[diagnosis] thresholds must be above 0, got ", limit);
  }
  std::vector<std::string> kinds;
  for (const Watch& watch : watches()) kinds.emplace_back(watch.kind);
  for (const std::string& kind : config_.silent) {
    TEMPER_CHECK(std::find(kinds.begin(), kinds.end(), kind) != kinds.end(),
                 "[diagnosis] silent: there is no finding \"", kind, "\", the nearest is \"",
                 nearest_name(kind, kinds), "\"");
  }
}

std::vector<Diagnosis::Watch> Diagnosis::watches() const {
  const int64_t slow = config_.patience;
  return {
      {"truncation", &Diagnosis::truncation, 1},
      {"dead_groups", &Diagnosis::dead_groups, slow},
      {"mostly_dead_groups", &Diagnosis::mostly_dead_groups, slow},
      {"kl_runaway", &Diagnosis::kl_runaway, slow},
      {"kl_negative", &Diagnosis::kl_negative, config_.negative_kl_steps},
      {"entropy_collapse", &Diagnosis::entropy_collapse, slow},
      {"entropy_explosion", &Diagnosis::entropy_explosion, slow},
      {"reward_nan", &Diagnosis::reward_nan, 1},
      {"grad_nan", &Diagnosis::grad_nan, 1},
      {"grad_spike", &Diagnosis::grad_spike, 1},
      {"length_growth", &Diagnosis::length_growth, slow},
      {"mismatched_tokens", &Diagnosis::mismatched_tokens, 1},
      {"note/chosen_falls", &Diagnosis::chosen_falls, slow},
      {"note/loss_near_zero", &Diagnosis::loss_near_zero, slow},
  };
}

std::vector<Alarm> Diagnosis::check(int64_t step, const Metrics& metrics) {
  std::vector<Alarm> alarms;
  for (const Watch& watch : watches()) {
    const Verdict verdict = (this->*watch.look)(metrics);
    if (!verdict) continue;
    Streak& streak = streaks_[watch.kind];
    if (verdict->empty()) {
      streak.bad = 0;
      // A finding that comes and goes is one finding, not one alarm a step; a note is said once.
      const bool gone = ++streak.good >= config_.patience && !is_note(watch.kind);
      if (gone) streak.reported = streak.stopped = false;
      continue;
    }
    ++streak.bad;
    streak.good = 0;
    report(watch, step, *verdict, alarms);
  }
  remember(metrics);
  return alarms;
}

void Diagnosis::report(const Watch& watch, int64_t step, const std::string& sentence,
                       std::vector<Alarm>& out) {
  Streak& streak = streaks_[watch.kind];
  const std::string kind = watch.kind;
  const auto& silent = config_.silent;
  if (std::find(silent.begin(), silent.end(), kind) != silent.end()) return;
  if (!streak.reported && streak.bad >= watch.patience) {
    streak.reported = true;
    out.push_back({step, kind, sentence, false});
  }
  const int64_t stop_at = std::max(config_.stop_after, watch.patience);
  if (config_.action == "stop" && !is_note(kind) && !streak.stopped && streak.bad >= stop_at) {
    streak.stopped = true;
    out.push_back({step, kind,
                   concat(sentence, " This has lasted for ", streak.bad, " steps: stopping."),
                   true});
  }
}

void Diagnosis::remember(const Metrics& m) {
  const auto add = [&](Baseline& b, const char* name) {
    const auto value = find_finite(m, name);
    if (!value || settled(b)) return;
    b.sum += *value;
    ++b.count;
  };
  add(entropy_, "entropy");
  add(length_, "completions/mean_length");
  if (const auto norm = find_finite(m, "grad_norm")) {
    // A spike must not raise the measure that it is held against.
    const double most = settled(grad_) ? config_.grad_spike * grad_.sum : *norm;
    const double value = std::min(*norm, most);
    grad_.sum = grad_.count == 0 ? value : kGradMemory * grad_.sum + (1 - kGradMemory) * value;
    ++grad_.count;
  }
  if (const auto kl = find_finite(m, "kl")) {
    kl_.push_back(*kl);
    if (kl_.size() > kKlWindow) kl_.erase(kl_.begin());
  }
  if (const auto reward = find_finite(m, "reward")) reward_ = reward;
  if (!chosen_) chosen_ = find_finite(m, "rewards/chosen");
}

Diagnosis::Verdict Diagnosis::truncation(const Metrics& m) const {
  if (!find(m, "completions/clipped_ratio")) return std::nullopt;
  if (!is_truncated_and_flat(m, reward_)) return "";
  return "Every completion was cut off by the length limit (completions/clipped_ratio 1) and the "
         "rewards do not differ, so nothing can be learned: raise rollout.max_new_tokens, or make "
         "the prompt ask for shorter answers.";
}

Diagnosis::Verdict Diagnosis::dead_groups(const Metrics& m) const {
  const auto dead = find_finite(m, "frac_reward_zero_std");
  if (!dead) return std::nullopt;
  if (*dead < kAll || is_truncated_and_flat(m, reward_)) return "";
  const auto reward = find(m, "reward");
  return concat("In every group all completions got the same reward (frac_reward_zero_std 1",
                reward ? concat(", mean reward ", num(*reward)) : "",
                "), so all advantages are 0 and nothing is learned: choose easier prompts if the "
                "reward is at its lowest and harder ones if it is at its highest, sample more "
                "completions a group, raise the temperature, or give the reward finer steps.");
}

Diagnosis::Verdict Diagnosis::mostly_dead_groups(const Metrics& m) const {
  const auto dead = find_finite(m, "frac_reward_zero_std");
  if (!dead) return std::nullopt;
  const auto all = streaks_.find("dead_groups");
  const bool all_dead = all != streaks_.end() && all->second.bad >= config_.patience;
  if (*dead < config_.dead_groups_share || all_dead || is_truncated_and_flat(m, reward_)) return "";
  return concat("In ", std::lround(100 * *dead),
                " % of the groups all completions got the same "
                "reward, so most of the sampling is wasted: choose prompts that the model solves "
                "sometimes, or sample more completions a group.");
}

Diagnosis::Verdict Diagnosis::kl_runaway(const Metrics& m) const {
  const auto kl = find_finite(m, "kl");
  if (!kl) return std::nullopt;
  if (*kl > config_.kl_limit) {
    return concat("The KL to the reference is ", num(*kl),
                  " nats a token, above diagnosis.kl_limit (", num(config_.kl_limit),
                  "): the policy is leaving the model it came from; lower the "
                  "learning rate or raise the KL coefficient.");
  }
  const bool grows = kl_.size() == kKlWindow && kl_.front() > 0 && *kl > 0.1 * config_.kl_limit &&
                     *kl > config_.kl_growth * kl_.front();
  if (!grows) return "";
  return concat("The KL to the reference grew from ", num(kl_.front()), " to ", num(*kl),
                " nats a token in ", kKlWindow,
                " steps and is running away: lower the learning rate or raise the KL "
                "coefficient.");
}

Diagnosis::Verdict Diagnosis::kl_negative(const Metrics& m) const {
  const auto kl = find_finite(m, "kl");
  if (!kl) return std::nullopt;
  if (*kl >= 0) return "";
  return concat("The k1 estimate of the KL stays negative (now ", num(*kl),
                "), which a true KL cannot "
                "be: the samples do not come from the policy itself. Look for top-k, top-p, min-p "
                "or a minimum length in the sampling, a masked stop token, or dropout.");
}

Diagnosis::Verdict Diagnosis::entropy_collapse(const Metrics& m) const {
  const auto entropy = find_finite(m, "entropy");
  if (!entropy || !settled(entropy_)) return std::nullopt;
  const double start = mean(entropy_.sum, entropy_.count);
  if (start < kLeastEntropy || *entropy >= config_.entropy_collapse * start) return "";
  return concat("The entropy fell from ", num(start), " to ", num(*entropy),
                " nats a token: the policy gives "
                "nearly the same answer every time and explores no more; lower the learning rate, "
                "raise the clip range for rising tokens or the KL coefficient, or add an entropy "
                "bonus.");
}

Diagnosis::Verdict Diagnosis::entropy_explosion(const Metrics& m) const {
  const auto entropy = find_finite(m, "entropy");
  if (!entropy || !settled(entropy_)) return std::nullopt;
  const double start = mean(entropy_.sum, entropy_.count);
  if (*entropy < kHighEntropy || *entropy <= config_.entropy_explosion * start) return "";
  return concat("The entropy rose from ", num(start), " to ", num(*entropy),
                " nats a token: the policy is "
                "turning to noise; lower the learning rate or the entropy bonus.");
}

Diagnosis::Verdict Diagnosis::reward_nan(const Metrics& m) const {
  const auto reward = find(m, "reward");
  const auto share = find(m, "frac_reward_nan");
  if (!reward && !share) return std::nullopt;
  if ((!reward || std::isfinite(*reward)) && (!share || *share <= 0)) return "";
  const std::string many = share ? concat(" (", num(100 * *share), " % of them)") : "";
  return "Rewards are not numbers" + many +
         ": a reward function returned NaN or infinity, and what "
         "is learned from it means nothing; look at completions.jsonl for the rows.";
}

Diagnosis::Verdict Diagnosis::grad_nan(const Metrics& m) const {
  const auto norm = find(m, "grad_norm");
  if (!norm) return std::nullopt;
  if (std::isfinite(*norm)) return "";
  return "The gradient norm is not a number: the update cannot be used; go back to the last "
         "checkpoint with a lower learning rate or in fp32.";
}

Diagnosis::Verdict Diagnosis::grad_spike(const Metrics& m) const {
  const auto norm = find_finite(m, "grad_norm");
  if (!norm || !settled(grad_)) return std::nullopt;
  if (grad_.sum <= 0 || *norm <= config_.grad_spike * grad_.sum) return "";
  return concat("The gradient norm jumped to ", num(*norm), " from about ", num(grad_.sum),
                ": one batch pulls far harder than the others; look at its completions, and lower "
                "the learning rate or max_grad_norm if it happens again.");
}

Diagnosis::Verdict Diagnosis::length_growth(const Metrics& m) const {
  const auto length = find_finite(m, "completions/mean_length");
  if (!length || !settled(length_)) return std::nullopt;
  const double start = mean(length_.sum, length_.count);
  if (*length <= config_.length_growth * start) return "";
  return concat("Completions grew from ", num(start), " to ", num(*length),
                " tokens: look whether the answers "
                "got better or only longer; an overlong or repetition penalty, or the token-mean "
                "loss (dapo), takes away the pull to length.");
}

Diagnosis::Verdict Diagnosis::mismatched_tokens(const Metrics& m) const {
  const auto count = find(m, "sampling/mismatched_tokens");
  if (!count) return std::nullopt;
  if (*count == 0) return "";
  return concat(
      "The training forward gave ", num(*count),
      " sampled tokens another log-probability than "
      "sampling did: this must be 0. Please report it, with config.json and the machine.");
}

Diagnosis::Verdict Diagnosis::chosen_falls(const Metrics& m) const {
  const auto chosen = find_finite(m, "rewards/chosen");
  const auto margin = find_finite(m, "rewards/margins");
  // Without a reference a reward is a log-prob: below 0 at all times, and no finding.
  if (!chosen || !margin || !chosen_ || std::abs(*chosen_) > kFlat) return std::nullopt;
  if (*chosen >= 0 || *margin <= 0) return "";
  return concat("Preferred answers are less likely than at the start (rewards/chosen ", num(*chosen),
                ") though pairs come apart: only the difference is trained, and probability goes to "
                "answers that nobody rated. Add a likelihood term (loss.loss_type=sigmoid,sft), or "
                "lower the learning rate.");
}

Diagnosis::Verdict Diagnosis::loss_near_zero(const Metrics& m) const {
  const auto loss = find_finite(m, "loss");
  const auto norm = find_finite(m, "grad_norm");
  if (!loss || !norm || !find(m, "reward")) return std::nullopt;
  if (std::abs(*loss) >= kZeroLoss || *norm <= 0) return "";
  return "The loss is near 0, as expected: advantages are centred in each group, so the loss is "
         "near "
         "0 while the gradient is not. Watch the reward, not the loss.";
}

}  // namespace temper
