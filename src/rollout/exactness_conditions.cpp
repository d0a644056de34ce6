#include "exactness_conditions.h"

#include <algorithm>
#include <numeric>

#include "temper/core/rng.h"

namespace temper {
namespace {

// The large batches come first: the time left is then guessed from what most tokens take.
constexpr ExactnessCondition kConditions[] = {
    {.name = "batch_64", .share = 20},
    {.name = "batch_33", .share = 10, .prompts = 11, .group_size = 3, .slots = 33},
    {.name = "batch_16", .share = 8, .prompts = 4, .group_size = 4, .slots = 16},
    {.name = "joining_and_leaving",
     .share = 10,
     .prompts = 24,
     .group_size = 4,
     .slots = 24,
     .prefill_tokens = 48},
    {.name = "shuffled_packing", .share = 10, .packing = Packing::kShuffled},
    {.name = "shared_prefix", .share = 8, .prompts = 2, .group_size = 16, .slots = 32},
    {.name = "unshared_prefix",
     .share = 8,
     .prompts = 32,
     .group_size = 1,
     .slots = 32,
     .repeat_prompt = true,
     .packing = Packing::kAlone},
    {.name = "preempted", .share = 8, .prompts = 4, .group_size = 4, .preempt = true},
    {.name = "truncated_sampling", .share = 6, .truncate = true},
    {.name = "sampled_on_1_thread_scored_on_2",
     .share = 6,
     .sample_threads = 1,
     .score_threads = 2},
    {.name = "sampled_on_2_threads_scored_on_1",
     .share = 6,
     .sample_threads = 2,
     .score_threads = 1},
    {.name = "prefill_in_chunks_of_100", .share = 6, .prefill_tokens = 100},
    {.name = "prefill_in_chunks_of_7", .share = 5, .group_size = 4, .prefill_tokens = 7},
    {.name = "prefill_in_chunks_of_1",
     .share = 3,
     .prompts = 4,
     .group_size = 4,
     .prefill_tokens = 1},
    {.name = "batch_7", .share = 4, .prompts = 7, .group_size = 1, .slots = 7},
    {.name = "batch_2", .share = 1.5, .prompts = 1, .group_size = 2, .slots = 2},
    {.name = "batch_1",
     .share = 0.5,
     .prompts = 1,
     .group_size = 1,
     .slots = 1,
     .packing = Packing::kAlone},
};

/// Completions of one prompt that are scored behind it.
struct Piece {
  std::vector<size_t> samples;
  int64_t tokens = 0;
};

std::vector<Piece> pieces(const RolloutRequest& request, const std::vector<Sample>& samples,
                          Packing packing, RngStream& rng) {
  std::vector<Piece> out;
  for (size_t s = 0; s < samples.size(); ++s) {
    const bool same_prompt = s > 0 && samples[s - 1].prompt == samples[s].prompt;
    const bool joins =
        packing == Packing::kTree || (packing == Packing::kShuffled && rng.next_uniform() < 0.6);
    if (!same_prompt || !joins) {
      const auto prompt = static_cast<size_t>(samples[s].prompt);
      out.push_back({{}, std::ssize(request.prompts[prompt])});
    }
    out.back().samples.push_back(s);
    out.back().tokens += std::ssize(samples[s].ids);
  }
  if (packing != Packing::kShuffled) return out;
  for (size_t i = out.size(); i > 1; --i) std::swap(out[i - 1], out[rng.next_below(i)]);
  return out;
}

/// A text as one segment, prompt and completion uncut.
CompletionBatch uncut(std::span<const int32_t> prompt, std::span<const int32_t> completion) {
  CompletionBatch b;
  auto& ids = b.tokens.ids;
  ids.assign(prompt.begin(), prompt.end());
  ids.insert(ids.end(), completion.begin(), completion.end());
  b.tokens.positions.resize(ids.size());
  std::iota(b.tokens.positions.begin(), b.tokens.positions.end(), 0);
  b.tokens.segments.push_back({-1, 0, static_cast<int32_t>(ids.size()), -1});
  for (size_t i = 0; i < completion.size(); ++i) {
    b.rows.push_back(static_cast<int32_t>(prompt.size() + i) - 1);
  }
  b.targets.assign(completion.begin(), completion.end());
  return b;
}

ScoringBatch pack(const RolloutRequest& request, const std::vector<Sample>& samples,
                  std::span<const Piece> parts, Packing packing) {
  ScoringBatch out;
  std::vector<PackedGroup> groups;
  for (const Piece& part : parts) {
    groups.push_back({request.prompts[static_cast<size_t>(samples[part.samples[0]].prompt)], {}});
    for (const size_t s : part.samples) {
      groups.back().completions.emplace_back(samples[s].ids);
      out.logprobs.insert(out.logprobs.end(), samples[s].logprobs.begin(),
                          samples[s].logprobs.end());
      out.entropy.insert(out.entropy.end(), samples[s].entropy.begin(), samples[s].entropy.end());
    }
  }
  CompletionBatch b = packing == Packing::kAlone ? uncut(groups[0].prompt, groups[0].completions[0])
                                                 : pack_completions(groups);
  out.tokens = std::move(b.tokens);
  out.request = {std::move(b.rows), std::move(b.targets)};
  return out;
}

}  // namespace

std::span<const ExactnessCondition> exactness_conditions() { return kConditions; }

std::vector<ScoringBatch> scoring_batches(const RolloutRequest& request,
                                          const std::vector<Sample>& samples, Packing packing,
                                          uint64_t seed) {
  constexpr int64_t kBatchTokens = 1024;
  RngStream rng(seed, RngPurpose::kShuffle, request.step);
  const std::vector<Piece> all = pieces(request, samples, packing, rng);
  std::vector<ScoringBatch> out;
  for (size_t begin = 0; begin < all.size();) {
    const int64_t limit = packing == Packing::kShuffled
                              ? 64 + static_cast<int64_t>(rng.next_below(kBatchTokens))
                              : kBatchTokens;
    size_t end = begin + 1;
    int64_t tokens = all[begin].tokens;
    while (packing != Packing::kAlone && end < all.size() && tokens + all[end].tokens <= limit) {
      tokens += all[end++].tokens;
    }
    out.push_back(pack(request, samples, std::span(all).subspan(begin, end - begin), packing));
    begin = end;
  }
  return out;
}

}  // namespace temper
