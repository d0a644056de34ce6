#include "temper/trainer/pair_source.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "answer_json.h"
#include "state_file.h"
#include "temper/core/error.h"
#include "temper/core/rng.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

const Json& part(const Json& state, const char* key) {
  const auto it = state.find(key);
  TEMPER_CHECK(it != state.end(), "[resume] the source of pairs has no \"", key, "\"");
  return *it;
}

}  // namespace

FilePairs::FilePairs(TokenizedAnswers rows, int64_t rows_per_round, uint64_t seed)
    : rows_(std::move(rows)), per_round_(rows_per_round), sampler_(rows_.groups.size(), seed) {
  TEMPER_CHECK(per_round_ >= 1, "[pairs] a round must take at least 1 row of ", rows_.source);
  for (const AnswerGroup& g : rows_.groups) {
    TEMPER_CHECK(g.answers.size() == 2, "[pairs] line ", g.line, " of ", rows_.source, " has ",
                 g.answers.size(), " answers, not a preferred and another one");
  }
}

PairRows FilePairs::next(const RoundStart&) {
  PairRows out;
  for (const size_t i : sampler_.next(static_cast<size_t>(per_round_))) {
    out.groups.push_back(rows_.groups[i]);
  }
  given_ += per_round_;
  out.metrics["pairs/from_file"] = static_cast<double>(per_round_);
  return out;
}

Json FilePairs::state() const {
  const PromptSampler::State s = sampler_.state();
  return {{"epoch", s.epoch}, {"position", s.position}, {"given", given_}, {"hash", rows_.hash}};
}

void FilePairs::restore(const Json& state) {
  TEMPER_CHECK(required<uint64_t>(state, "hash") == rows_.hash,
               "[resume] the given pairs are not those of the checkpoint: restore pairs.path and "
               "its settings, or start a new run");
  sampler_.restore({required<uint64_t>(state, "epoch"), required<uint64_t>(state, "position")});
  given_ = required<int64_t>(state, "given");
}

double FilePairs::epoch() const {
  return static_cast<double>(given_) / static_cast<double>(rows_.groups.size());
}

MixedPairs::MixedPairs(std::vector<std::unique_ptr<PairSource>> sources)
    : sources_(std::move(sources)) {
  TEMPER_CHECK(!sources_.empty(), "[pairs] a mixture needs a source");
}

PairRows MixedPairs::next(const RoundStart& at) {
  PairRows out;
  for (const auto& source : sources_) {
    PairRows more = source->next(at);
    std::move(more.groups.begin(), more.groups.end(), std::back_inserter(out.groups));
    std::move(more.samples.begin(), more.samples.end(), std::back_inserter(out.samples));
    out.metrics.merge(more.metrics);
  }
  return out;
}

Json MixedPairs::state() const {
  Json out = Json::array();
  for (const auto& source : sources_) out.push_back(source->state());
  return out;
}

void MixedPairs::restore(const Json& state) {
  TEMPER_CHECK(state.is_array() && state.size() == sources_.size(),
               "[resume] the checkpoint mixes other sources of pairs than this run");
  for (size_t i = 0; i < sources_.size(); ++i) sources_[i]->restore(state[i]);
}

double MixedPairs::epoch() const { return sources_.front()->epoch(); }

ReplayedPairs::ReplayedPairs(std::unique_ptr<PairSource> fresh, ReplayConfig config, uint64_t seed)
    : fresh_(std::move(fresh)), config_(config), seed_(seed) {
  TEMPER_CHECK(config.rows >= 1, "[replay] at least 1 row must come back, got ", config.rows);
  TEMPER_CHECK(config.max_steps >= 1, "[replay] rows must be kept for at least 1 step, got ",
               config.max_steps);
}

PairRows ReplayedPairs::next(const RoundStart& at) {
  PairRows out = fresh_->next(at);
  while (!kept_.empty() && at.step - kept_.front().step > config_.max_steps) kept_.pop_front();
  if (out.groups.empty()) return out;  // A round of old rows alone would hide that nothing is new.
  // The first entries of a permutation: every kept row is as likely as any other.
  std::vector<size_t> order(kept_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const size_t count = std::min(order.size(), static_cast<size_t>(config_.rows));
  RngStream random(seed_, RngPurpose::kMinibatch, static_cast<uint64_t>(at.round));
  double age = 0;
  const size_t fresh = out.groups.size();
  for (size_t i = 0; i < count; ++i) {
    std::swap(order[i], order[i + random.next_below(order.size() - i)]);
    const Kept& k = kept_[order[i]];
    out.groups.push_back(k.group);
    age += static_cast<double>(at.step - k.step);
  }
  for (size_t i = 0; i < fresh; ++i) kept_.push_back({at.step, out.groups[i]});
  out.metrics["replay/rows"] = static_cast<double>(count);
  out.metrics["replay/kept"] = static_cast<double>(kept_.size());
  if (count > 0) out.metrics["replay/mean_age"] = age / static_cast<double>(count);
  return out;
}

Json ReplayedPairs::state() const {
  Json kept = Json::array();
  for (const Kept& k : kept_) kept.push_back({{"step", k.step}, {"row", answer_group_json(k.group)}});
  return {{"fresh", fresh_->state()}, {"kept", kept}};
}

void ReplayedPairs::restore(const Json& state) {
  std::deque<Kept> kept;
  for (const Json& k : part(state, "kept")) {
    kept.push_back({required<int64_t>(k, "step"), parse_answer_group(part(k, "row"))});
  }
  fresh_->restore(part(state, "fresh"));
  kept_ = std::move(kept);
}

}  // namespace temper
