// How a rollout is cut into optimizer steps and micro-batches, and what the loss is told of each.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <numeric>
#include <span>

#include "temper/core/error.h"
#include "temper/core/rng.h"
#include "temper/objective/entropy.h"
#include "temper/trainer/online.h"

namespace temper {

bool OnlineTrainer::trained_on(const Rollout& r, size_t sample) const {
  if (parts_.config.mask_truncated && r.samples[sample].finish == Finish::kLength) return false;
  const std::span<const float> tokens = r.advantages.tokens;
  const auto begin = static_cast<size_t>(r.offsets[sample]);
  const auto end = static_cast<size_t>(r.offsets[sample + 1]);
  const bool zero = tokens.empty()
                        ? r.advantages.values[sample] == 0.0
                        : std::ranges::all_of(tokens.subspan(begin, end - begin),
                                              [](float a) { return a == 0.0f; });
  return !(zero && parts_.config.skip_dead_groups && !parts_.algorithm.trains_on_zero);
}

std::vector<OnlineTrainer::MicroBatch> OnlineTrainer::micro_batches(
    const Rollout& r, std::span<const size_t> prompts, bool all) const {
  const size_t group = static_cast<size_t>(parts_.config.group_size);
  const int64_t limit = parts_.config.micro_batch_tokens;
  std::vector<MicroBatch> out;
  int64_t tokens = 0;
  const auto length = [&](size_t s) { return std::ssize(r.samples[s].ids); };
  for (const size_t p : prompts) {
    Part part{p, {}};
    const int64_t prompt = std::ssize(r.request.prompts[p]);
    int64_t whole = prompt;
    for (size_t s = p * group; s < (p + 1) * group; ++s) {
      if (!all && !trained_on(r, s)) continue;
      part.samples.push_back(s);
      whole += length(s);
    }
    if (part.samples.empty()) continue;
    if (out.empty() || tokens + whole > limit) {
      out.emplace_back();
      tokens = 0;
    }
    if (tokens + whole <= limit) {
      out.back().push_back(std::move(part));
      tokens += whole;
      continue;
    }
    // Only a group that no micro-batch can hold is cut, its prompt computed once for each piece.
    for (const size_t s : part.samples) {
      if (!out.back().empty() && tokens + length(s) > limit) {
        out.emplace_back();
        tokens = 0;
      }
      if (out.back().empty()) {
        out.back().push_back({p, {}});
        tokens = prompt;
      }
      out.back().back().samples.push_back(s);
      tokens += length(s);
    }
  }
  return out;
}

std::vector<std::vector<size_t>> OnlineTrainer::minibatches(const Rollout& r, int64_t pass) const {
  const size_t prompts = r.rows.size();
  const size_t parts = static_cast<size_t>(parts_.config.minibatches);
  const size_t group = static_cast<size_t>(parts_.config.group_size);
  std::vector<size_t> order(prompts);
  std::iota(order.begin(), order.end(), size_t{0});
  if (parts_.config.minibatch_order != "as_sampled") {
    RngStream rng(parts_.seed, RngPurpose::kMinibatch,
                  static_cast<uint64_t>(r.step * parts_.config.iterations + pass));
    for (size_t i = prompts; i > 1; --i) std::swap(order[i - 1], order[rng.next_below(i)]);
  }
  std::vector<std::vector<size_t>> out(parts);
  if (parts_.config.minibatch_order != "by_tokens") {
    for (size_t i = 0; i < parts; ++i) {
      const auto from = order.begin();
      out[i].assign(from + static_cast<std::ptrdiff_t>(prompts * i / parts),
                    from + static_cast<std::ptrdiff_t>(prompts * (i + 1) / parts));
    }
    return out;
  }
  // A prompt goes to the part in which the middle of its tokens falls; no part stays empty, since
  // each one leaves as many prompts as parts follow.
  const double total = static_cast<double>(r.offsets.back());
  double before = 0;
  size_t part = 0;
  for (size_t i = 0; i < prompts; ++i) {
    const size_t p = order[i];
    const auto tokens = static_cast<double>(r.offsets[(p + 1) * group] - r.offsets[p * group]);
    const auto wanted = static_cast<size_t>((before + tokens / 2) / total * static_cast<double>(parts));
    const bool must = prompts - i <= parts - part - 1 && !out[part].empty();
    const bool may = part + 1 < parts && !out[part].empty() && wanted > part;
    if (must || may) ++part;
    out[part].push_back(p);
    before += tokens;
  }
  return out;
}

StepTotals OnlineTrainer::totals(const Rollout& r, std::span<const size_t> prompts) const {
  const size_t group = static_cast<size_t>(parts_.config.group_size);
  StepTotals t;
  t.max_completion_tokens = parts_.rollout.max_new_tokens;
  std::vector<float> entropy;
  for (const size_t p : prompts) {
    for (size_t s = p * group; s < (p + 1) * group; ++s) {
      t.sequences += 1;
      if (parts_.config.mask_truncated && r.samples[s].finish == Finish::kLength) continue;
      t.tokens += static_cast<double>(r.samples[s].ids.size());
      entropy.insert(entropy.end(), r.samples[s].entropy.begin(), r.samples[s].entropy.end());
    }
  }
  if (parts_.config.top_entropy_quantile < 1.0 && !entropy.empty()) {
    const std::vector<float> ones(entropy.size(), 1.0f);
    const EntropyCut cut =
        entropy_threshold(entropy, ones, 1.0 - parts_.config.top_entropy_quantile);
    t.entropy_threshold = cut.threshold;
    t.entropy_tokens = static_cast<double>(cut.tokens);
  }
  return t;
}

/// Numbers of the rollout's tokens in a micro-batch's order.
std::vector<float> OnlineTrainer::gather(const Rollout& r, const MicroBatch& batch,
                                         const std::vector<float>& flat) const {
  std::vector<float> out;
  for (const Part& part : batch) {
    for (const size_t s : part.samples) {
      out.insert(out.end(), flat.begin() + r.offsets[s], flat.begin() + r.offsets[s + 1]);
    }
  }
  return out;
}

/// The inverse of `gather`.
void OnlineTrainer::scatter(const Rollout& r, const MicroBatch& batch, std::span<const float> values,
                            std::vector<float>& flat) const {
  auto from = values.begin();
  for (const Part& part : batch) {
    for (const size_t s : part.samples) {
      const auto count = r.offsets[s + 1] - r.offsets[s];
      std::copy_n(from, count, flat.begin() + r.offsets[s]);
      from += count;
    }
  }
}

RolloutBatch OnlineTrainer::make_batch(const Rollout& r, const MicroBatch& batch,
                                       const std::vector<int32_t>& sequence) const {
  const int64_t n = std::ssize(sequence);
  RolloutBatch b;
  b.old_logprobs = at::empty({n}, at::kFloat);
  b.mask = at::empty({n}, at::kFloat).fill_(1.0);
  b.sequence = at::empty({n}, at::kLong);
  std::vector<float> advantages;
  int64_t at_token = 0;
  int64_t sequences = 0;
  for (const Part& part : batch) {
    for (const size_t s : part.samples) {
      const auto& old = r.samples[s].logprobs;
      std::copy(old.begin(), old.end(), b.old_logprobs.data_ptr<float>() + at_token);
      at_token += std::ssize(old);
      advantages.push_back(static_cast<float>(r.advantages.values[s]));
      ++sequences;
    }
  }
  std::copy(sequence.begin(), sequence.end(), b.sequence.data_ptr<int64_t>());
  b.sequences = sequences;
  if (!r.advantages.tokens.empty()) advantages = gather(r, batch, r.advantages.tokens);
  b.advantages = at::from_blob(advantages.data(), {std::ssize(advantages)}, at::kFloat).clone();
  return b;
}

/// The scores that sampling recorded: by the exactness contract those of the first update.
TokenScores OnlineTrainer::recorded_scores(const Rollout& r, const MicroBatch& batch,
                                           const at::Tensor& logprobs) const {
  TokenScores recorded{logprobs, at::empty_like(logprobs)};
  float* to = recorded.entropy.data_ptr<float>();
  for (const Part& part : batch) {
    for (const size_t s : part.samples) {
      const Sample& sample = r.samples[s];
      TEMPER_CHECK(sample.entropy.size() == sample.ids.size(), "[update] completion ", s, " has ",
                   sample.entropy.size(), " entropies for ", sample.ids.size(), " tokens");
      to = std::copy(sample.entropy.begin(), sample.entropy.end(), to);
    }
  }
  return recorded;
}

}  // namespace temper
