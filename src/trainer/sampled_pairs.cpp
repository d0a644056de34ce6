#include "temper/trainer/sampled_pairs.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "state_file.h"
#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/rollout/mixture.h"
#include "temper/trainer/evaluation.h"

namespace temper {

void PairSamplingConfig::validate() const {
  TEMPER_CHECK(prompts_per_round >= 1, "preference.prompts_per_round must be at least 1, got ",
               prompts_per_round);
  TEMPER_CHECK(completions >= 2, "preference.completions must be at least 2, got ", completions);
  TEMPER_CHECK(pairing == "best_worst" || completions % 2 == 0,
               "preference.completions must be even for pairing=in_turn, got ", completions);
  TEMPER_CHECK(std::isfinite(min_margin) && min_margin >= 0,
               "preference.min_margin must be at least 0, got ", min_margin);
  TEMPER_CHECK(mixture_coef >= 0 && mixture_coef <= 1,
               "preference.mixture_coef must be in [0, 1], got ", mixture_coef);
}

/// A round's answers: `answers` of each prompt in turn, in units that are judged against each other.
struct SampledPairs::Batch {
  std::vector<size_t> rows;         ///< [prompts]
  std::vector<EncodedPrompt> prompts;
  std::vector<Sample> samples;      ///< [prompts * completions]
  std::vector<Completion> completions;
  std::vector<double> marks;        ///< [samples], or empty: the labeler only compares.
  std::vector<double> preferred;    ///< [units] P(the first is preferred), of Nash-MD.
  std::vector<int> role;            ///< [samples] 1 preferred in a pair, -1 not, 0 in none.
  double sampling_seconds = 0;
  double labelling_seconds = 0;

  [[nodiscard]] size_t prompt_of(size_t sample) const {
    return sample / (samples.size() / rows.size());
  }
};

/// What became of the units.
struct SampledPairs::Tally {
  int64_t made = 0, tied = 0, unlabelled = 0, close = 0, equal = 0;
  double margin = 0, length_gap = 0;
  std::vector<std::pair<size_t, size_t>> pairs;  ///< Samples, the preferred first.
};

SampledPairs::SampledPairs(PolicyModel& policy, Parts parts)
    : policy_(policy),
      parts_(std::move(parts)),
      sampler_(parts_.prompts.examples.size(), parts_.seed) {
  parts_.config.validate();
  TEMPER_CHECK(parts_.labeler.scores || parts_.labeler.prefer, "[pairs] the labeler \"",
               parts_.labeler.name, "\" can neither mark an answer nor compare two");
  TEMPER_CHECK(parts_.rollout.temperature > 0,
               "rollout.temperature must be above 0 for training: greedy answers are equal");
  if (parts_.opponent == Opponent::kPolicy) return;
  TEMPER_CHECK(parts_.reference.has_value(), "[pairs] the policy's answers are to meet those of a "
               "reference, and none was given");
  TEMPER_CHECK(parts_.config.completions % 2 == 0,
               "preference.completions must be even: half are the opponent's, got ",
               parts_.config.completions);
}

/// Answers that are judged together: a prompt's, or one of the policy with one of its opponent.
size_t SampledPairs::unit() const {
  const bool all = parts_.opponent == Opponent::kPolicy && parts_.config.pairing == "best_worst";
  return all ? static_cast<size_t>(parts_.config.completions) : 2;
}

std::vector<Sample> SampledPairs::opponents(const RolloutRequest& request) const {
  RolloutRequest own = request;
  own.seed ^= 0x6f70706full;  // Draws apart from the policy's.
  CausalLM& reference = parts_.reference->lm();
  if (parts_.opponent == Opponent::kReference) {
    return RolloutEngine(reference, policy_.text(), parts_.rollout).generate(own);
  }
  return sample_mixture({policy_.lm(), reference, parts_.config.mixture_coef}, policy_.text(),
                        parts_.rollout, own);
}

SampledPairs::Batch SampledPairs::sample(const RoundStart& at) {
  const Stopwatch watch;
  Batch b;
  b.rows = sampler_.next(static_cast<size_t>(parts_.config.prompts_per_round));
  given_ += parts_.config.prompts_per_round;
  RolloutRequest request;
  for (const size_t row : b.rows) {
    b.prompts.push_back(encode_prompt(parts_.prompts.examples[row], policy_.text()));
    request.prompts.push_back(b.prompts.back().ids);
  }
  const bool alone = parts_.opponent == Opponent::kPolicy;
  request.group_size = alone ? parts_.config.completions : parts_.config.completions / 2;
  request.seed = parts_.seed;
  request.step = static_cast<uint32_t>(at.round);
  std::vector<Sample> own = RolloutEngine(policy_.lm(), policy_.text(), parts_.rollout).generate(request);
  if (alone) {
    b.samples = std::move(own);
  } else {
    std::vector<Sample> others = opponents(request);
    for (size_t i = 0; i < own.size(); ++i) {
      b.samples.push_back(std::move(own[i]));
      b.samples.push_back(std::move(others[i]));
    }
  }
  b.role.resize(b.samples.size());
  for (size_t i = 0; i < b.samples.size(); ++i) {
    const size_t p = b.prompt_of(i);
    const Sample& s = b.samples[i];
    b.completions.push_back({b.prompts[p].text, s.text, s.ids, s.finish == Finish::kLength,
                             &parts_.prompts.examples[b.rows[p]]});
  }
  b.sampling_seconds = watch.seconds();
  return b;
}

void SampledPairs::label(Batch& b) const {
  const Stopwatch watch;
  const Labeler& labeler = parts_.labeler;
  const bool probabilities = parts_.opponent == Opponent::kMixture;
  if (!probabilities || !labeler.prefer) b.marks = temper::marks(labeler, b.completions, unit());
  if (probabilities && labeler.prefer) {
    std::vector<AnswerPair> pairs;
    for (size_t i = 0; i + 1 < b.completions.size(); i += 2) {
      pairs.push_back({b.completions[i], b.completions[i + 1]});
    }
    b.preferred = preferences(labeler, pairs);
  } else if (probabilities) {
    for (size_t i = 0; i + 1 < b.marks.size(); i += 2) {
      b.preferred.push_back(preference_by_marks(labeler, b.marks[i], b.marks[i + 1]));
    }
  }
  b.labelling_seconds = watch.seconds();
}

void SampledPairs::take_pair(const Batch& b, size_t first, std::span<const double> marks,
                             Tally& tally, PairRows& out) const {
  const auto choice = best_against_worst(marks);
  if (!choice) {
    const auto labelled = std::count_if(marks.begin(), marks.end(),
                                        [](double m) { return !std::isnan(m); });
    (labelled < 2 ? tally.unlabelled : tally.tied)++;
    return;
  }
  if (choice->margin < parts_.config.min_margin) {
    tally.close++;
    return;
  }
  const size_t chosen = first + choice->chosen, rejected = first + choice->rejected;
  const Sample& better = b.samples[chosen];
  const Sample& worse = b.samples[rejected];
  if (better.ids == worse.ids) {
    tally.equal++;
    return;
  }
  const size_t p = b.prompt_of(first);
  tally.made++;
  tally.margin += choice->margin;
  tally.length_gap += static_cast<double>(std::ssize(better.ids) - std::ssize(worse.ids));
  tally.pairs.emplace_back(chosen, rejected);
  out.groups.push_back({.prompt = b.prompts[p].ids,
                        .answers = {{better.ids, {}}, {worse.ids, {}}},
                        .label = choice->chosen == 0 ? 1.0 : 0.0,
                        .line = b.rows[p] + 1});
}

void SampledPairs::pair(const Batch& b, size_t u, Tally& tally, PairRows& out) const {
  const size_t first = u * unit();
  if (parts_.opponent != Opponent::kMixture) {
    return take_pair(b, first, std::span(b.marks).subspan(first, unit()), tally, out);
  }
  if (std::isnan(b.preferred[u])) {
    tally.unlabelled++;
    return;
  }
  const size_t p = b.prompt_of(first);
  tally.made++;
  out.groups.push_back({.prompt = b.prompts[p].ids,
                        .answers = {{b.samples[first].ids, {}}},
                        .label = b.preferred[u],
                        .line = b.rows[p] + 1});
}

PairRows SampledPairs::next(const RoundStart& at) {
  Batch batch = sample(at);
  label(batch);
  PairRows out;
  Tally tally;
  for (size_t u = 0; u < batch.samples.size() / unit(); ++u) pair(batch, u, tally, out);
  for (const auto& [chosen, rejected] : tally.pairs) {
    batch.role[chosen] = 1;
    batch.role[rejected] = -1;
  }
  describe(batch, tally, out);
  return out;
}

nlohmann::ordered_json SampledPairs::state() const {
  const PromptSampler::State s = sampler_.state();
  return {{"epoch", s.epoch},
          {"position", s.position},
          {"given", given_},
          {"hash", parts_.prompts.content_hash},
          {"seed", parts_.seed}};
}

void SampledPairs::restore(const nlohmann::ordered_json& state) {
  TEMPER_CHECK(required<uint64_t>(state, "hash") == parts_.prompts.content_hash,
               "[resume] the prompts are not those of the checkpoint: restore the task and its data "
               "file, or start a new run");
  TEMPER_CHECK(required<uint64_t>(state, "seed") == parts_.seed,
               "[resume] the seed is not that of the checkpoint");
  sampler_.restore({required<uint64_t>(state, "epoch"), required<uint64_t>(state, "position")});
  given_ = required<int64_t>(state, "given");
}

double SampledPairs::epoch() const {
  return static_cast<double>(given_) / static_cast<double>(parts_.prompts.examples.size());
}

namespace {

/// Means over every `stride`-th sample, from `first` on.
struct Means {
  double mark = 0, marked = 0, eos = 0, count = 0;
};

Means means_of(const std::vector<double>& marks, const std::vector<Sample>& samples, size_t first,
               size_t stride) {
  Means m;
  for (size_t i = first; i < samples.size(); i += stride) {
    m.count += 1;
    m.eos += samples[i].finish == Finish::kEos ? 1 : 0;
    if (marks.empty() || std::isnan(marks[i])) continue;
    m.mark += marks[i];
    m.marked += 1;
  }
  return m;
}

}  // namespace

void SampledPairs::describe(const Batch& b, const Tally& t, PairRows& out) const {
  Metrics& m = out.metrics;
  const bool alone = parts_.opponent == Opponent::kPolicy;
  const Means own = means_of(b.marks, b.samples, 0, alone ? 1 : 2);
  const auto add = [&](const std::string& who, const Means& x) {
    if (x.marked > 0) m["objective/" + who + "scores"] = x.mark / x.marked;
    m["val/" + who + "contain_eos_token"] = x.eos / x.count;
  };
  add("", own);
  if (!alone) {
    add("model_", own);
    add("ref_", means_of(b.marks, b.samples, 1, 2));
  }
  double tokens = 0, cut = 0, unmarked = 0;
  for (const Sample& s : b.samples) {
    tokens += static_cast<double>(s.ids.size());
    cut += s.finish == Finish::kLength ? 1 : 0;
  }
  for (const double mark : b.marks) unmarked += std::isnan(mark) ? 1 : 0;
  const double count = static_cast<double>(b.samples.size());
  m["completions/mean_length"] = tokens / count;
  m["completions/clipped_ratio"] = cut / count;
  if (!b.marks.empty()) m["frac_reward_nan"] = unmarked / count;
  m["frac_reward_zero_std"] = static_cast<double>(t.tied) / (count / static_cast<double>(unit()));
  for (const auto& [name, value] :
       {std::pair("made", t.made), std::pair("tied", t.tied), std::pair("unlabelled", t.unlabelled),
        std::pair("close", t.close), std::pair("equal", t.equal)}) {
    m[std::string("pairs/") + name] = static_cast<double>(value);
  }
  if (!t.pairs.empty()) {
    m["objective/scores_margin"] = t.margin / static_cast<double>(t.made);
    m["pairs/length_gap"] = t.length_gap / static_cast<double>(t.made);
  }
  m["time/rollout"] = b.sampling_seconds;
  m["time/label"] = b.labelling_seconds;
  m["rollout/tokens_per_second"] = tokens / std::max(1e-9, b.sampling_seconds);
  const size_t per_prompt = static_cast<size_t>(parts_.config.completions);
  for (size_t i = 0; i < b.samples.size(); ++i) {
    const size_t at = i % b.rows.size() * per_prompt + i / b.rows.size();  // Over the prompts first.
    const Sample& s = b.samples[at];
    SampleCompletion c{0,  b.prompts[b.prompt_of(at)].text,   s.text,
                       {}, static_cast<double>(b.role[at]), std::ssize(s.ids),
                       s.finish == Finish::kLength};
    if (!b.marks.empty()) c.rewards.emplace_back(parts_.labeler.name, b.marks[at]);
    out.samples.push_back(std::move(c));
  }
}

}  // namespace temper
