#include "temper/data/dataset.h"

#include <limits>
#include <numeric>

#include "temper/core/error.h"
#include "temper/core/rng.h"

namespace temper {

std::vector<ChatMessage> as_messages(const Example& example) {
  if (!example.messages.empty()) return example.messages;
  return {{"user", example.prompt}};
}

void StableHash::update(std::string_view bytes) {
  uint64_t h = state_;
  for (const char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  state_ = h;
}

uint64_t StableHash::value() const {
  // FNV's high bits hardly move for short inputs; the finish of SplitMix64 spreads them.
  uint64_t h = state_;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
  return h ^ (h >> 31);
}

uint64_t prompt_id(const Example& example) {
  StableHash hash;
  if (example.messages.empty()) {
    hash.update(example.prompt);
    return hash.value();
  }
  // Lengths first: {"ab", "c"} and {"a", "bc"} must differ.
  for (const auto& m : example.messages) {
    hash.update(concat(m.role.size(), ' ', m.content.size(), ' '));
    hash.update(m.role);
    hash.update(m.content);
  }
  return hash.value();
}

double split_position(uint64_t id, uint64_t seed) {
  const auto r = keyed_random(seed, RngPurpose::kSplit, 0, id, 0);
  return uniform_from_bits(r[0], r[1]);
}

std::pair<Dataset, Dataset> split_by_hash(const Dataset& data, double held_out_fraction,
                                          uint64_t seed) {
  TEMPER_CHECK(held_out_fraction >= 0 && held_out_fraction <= 1,
               "[split_by_hash] held_out_fraction must be in [0, 1], got ", held_out_fraction);
  std::pair<Dataset, Dataset> parts;
  parts.first.source = parts.second.source = data.source;
  parts.first.license = parts.second.license = data.license;
  parts.first.content_hash = parts.second.content_hash = data.content_hash;
  parts.first.skipped = data.skipped;
  parts.first.problems = data.problems;
  for (const auto& example : data.examples) {
    const bool held_out = split_position(example.id, seed) < held_out_fraction;
    (held_out ? parts.second : parts.first).examples.push_back(example);
  }
  return parts;
}

PromptSampler::PromptSampler(size_t count, uint64_t seed, bool shuffle)
    : count_(count), seed_(seed), shuffle_(shuffle) {
  TEMPER_CHECK(count >= 1 && count <= std::numeric_limits<uint32_t>::max(),
               "[PromptSampler] count must be in [1, 2^32), got ", count);
  start_epoch();
}

void PromptSampler::start_epoch() {
  if (!shuffle_) return;
  order_.resize(count_);
  std::iota(order_.begin(), order_.end(), uint32_t{0});
  RngStream rng(seed_, RngPurpose::kShuffle, state_.epoch);
  for (size_t i = count_ - 1; i > 0; --i) {  // Fisher-Yates
    std::swap(order_[i], order_[rng.next_below(i + 1)]);
  }
}

std::vector<size_t> PromptSampler::next(size_t n) {
  std::vector<size_t> rows;
  rows.reserve(n);
  while (rows.size() < n) {
    const size_t at = static_cast<size_t>(state_.position);
    rows.push_back(shuffle_ ? order_[at] : at);
    if (++state_.position == count_) {
      state_ = {state_.epoch + 1, 0};
      start_epoch();
    }
  }
  return rows;
}

void PromptSampler::restore(State state) {
  TEMPER_CHECK(state.position < count_, "[PromptSampler] the saved position is ", state.position,
               " but there are ", count_, " rows: the state belongs to another dataset");
  const bool same_epoch = state.epoch == state_.epoch;
  state_ = state;
  if (!same_epoch) start_epoch();
}

}  // namespace temper
