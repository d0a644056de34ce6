#include "scheduler.h"

#include <algorithm>
#include <utility>

#include "temper/core/error.h"

namespace temper {

Scheduler::Scheduler(const RolloutRequest& request, const RolloutConfig& config,
                     std::vector<KvStore*> stores, RolloutStats& stats)
    : request_(request), config_(config), stores_(std::move(stores)), stats_(stats) {
  groups_.resize(request.prompts.size());
  sequences_.resize(request.prompts.size() * static_cast<size_t>(request.group_size));
}

int32_t Scheduler::open(int32_t parent) {
  int32_t node = -1;
  for (KvStore* kv : stores_) node = kv->open(parent);
  return node;
}

void Scheduler::close(int32_t node) {
  for (KvStore* kv : stores_) kv->close(node);
}

bool Scheduler::reserve(int32_t node, int64_t rows) {
  bool there = true;
  for (KvStore* kv : stores_) there = kv->reserve(node, rows) && there;
  return there;
}

void Scheduler::append_rows(int32_t node, std::span<const int32_t> ids, int64_t position,
                            Work& work) {
  TokenBatch& b = work.batch;
  b.segments.push_back(
      {-1, static_cast<int32_t>(b.ids.size()), static_cast<int32_t>(ids.size()), node});
  for (const int32_t id : ids) {
    b.ids.push_back(id);
    b.positions.push_back(static_cast<int32_t>(position++));
  }
}

/// Takes the pages of the youngest running sequence that comes after `sequence`.
bool Scheduler::preempt_after(int64_t sequence) {
  for (int64_t s = std::ssize(sequences_) - 1; s > sequence; --s) {
    Sequence& q = sequences_[static_cast<size_t>(s)];
    if (q.node < 0) continue;
    close(q.node);
    stats_.recomputed_tokens += q.fed;
    stats_.preemptions++;
    q.node = -1;
    q.fed = 0;
    return true;
  }
  return false;
}

/// Gives back prompts of later groups that no running sequence reads.
void Scheduler::drop_idle_prompts(int64_t keep_group) {
  for (int64_t g = std::ssize(groups_) - 1; g > keep_group; --g) {
    Group& group = groups_[static_cast<size_t>(g)];
    if (group.node < 0) continue;
    bool used = false;
    for (int64_t i = 0; i < request_.group_size; ++i) {
      used = used || sequences_[static_cast<size_t>(g * request_.group_size + i)].node >= 0;
    }
    if (used) continue;
    close(group.node);
    stats_.recomputed_tokens += group.fed;
    group.node = -1;
    group.fed = 0;
    return;
  }
}

/// Room for `rows` more tokens, if need be at the cost of sequences after `keep_from`.
bool Scheduler::make_room(int32_t node, int64_t rows, int64_t keep_from) {
  while (!reserve(node, rows)) {
    const int64_t before = stores_.front()->free_pages();
    if (!preempt_after(keep_from)) drop_idle_prompts(keep_from / request_.group_size);
    if (stores_.front()->free_pages() == before) return false;
  }
  return true;
}

/// Computes as much of a prompt as the budget allows. False when memory is short.
bool Scheduler::feed_prompt(int64_t g, int64_t& budget, Work& work) {
  Group& group = groups_[static_cast<size_t>(g)];
  if (group.node < 0) group.node = open(-1);
  const auto& ids = prompt(g);
  const int64_t rows = std::min<int64_t>(budget, std::ssize(ids) - group.fed);
  if (rows == 0) return true;
  const int64_t first = g * request_.group_size;
  if (!make_room(group.node, rows, first + request_.group_size - 1)) {
    if (group.fed == 0) {
      close(group.node);
      group.node = -1;
    }
    return false;
  }
  append_rows(group.node,
              std::span(ids).subspan(static_cast<size_t>(group.fed), static_cast<size_t>(rows)),
              group.fed, work);
  group.fed += rows;
  budget -= rows;
  stats_.prompt_tokens += rows;
  if (group.fed == std::ssize(ids)) {
    group.ready = true;
    work.finished_prompts.emplace_back(g, static_cast<int32_t>(work.batch.ids.size()) - 1);
  }
  return true;
}

/// Feeds the tokens of a completion that the store lacks; its last row is drawn from.
bool Scheduler::feed_sequence(int64_t s, Work& work) {
  Sequence& q = sequences_[static_cast<size_t>(s)];
  const int64_t g = s / request_.group_size;
  if (q.node < 0) q.node = open(groups_[static_cast<size_t>(g)].node);
  const int64_t rows = std::ssize(q.ids) - q.fed;
  if (!make_room(q.node, rows, s)) {
    if (q.fed == 0) {
      close(q.node);
      q.node = -1;
    }
    return false;
  }
  append_rows(q.node, std::span(q.ids).subspan(static_cast<size_t>(q.fed)),
              std::ssize(prompt(g)) + q.fed, work);
  q.fed += rows;
  work.draws.push_back({s, static_cast<int32_t>(work.batch.ids.size()) - 1, g});
  return true;
}

Scheduler::Work Scheduler::next() {
  Work work;
  int64_t budget = config_.prefill_tokens;
  int64_t places = config_.max_sequences;
  for (int64_t s = 0; s < std::ssize(sequences_) && places > 0; ++s) {
    Sequence& q = sequences_[static_cast<size_t>(s)];
    if (q.ended) continue;
    const int64_t g = s / request_.group_size;
    Group& group = groups_[static_cast<size_t>(g)];
    --places;
    const bool computed = group.node >= 0 && group.fed == std::ssize(prompt(g));
    if (q.ids.empty() && group.ready) {
      work.draws.push_back({s, -1, g});
    } else if (!computed) {
      // The group's first waiting sequence computes the prompt; the others wait with it.
      if (budget > 0 && !feed_prompt(g, budget, work)) break;
      s = (g + 1) * request_.group_size - 1;
    } else if (!q.ids.empty() && !feed_sequence(s, work)) {
      break;
    }
  }
  TEMPER_CHECK(!work.draws.empty() || work.batch.rows() > 0 || done(),
               "[rollout] rollout.kv_memory_mb is too small for one prompt with one completion");
  return work;
}

void Scheduler::record(int64_t sequence, int32_t token, bool ended) {
  Sequence& q = sequences_[static_cast<size_t>(sequence)];
  Group& group = groups_[static_cast<size_t>(sequence / request_.group_size)];
  q.ids.push_back(token);
  if (!ended) return;
  q.ended = true;
  ++ended_;
  if (q.node >= 0) close(q.node);
  q.node = -1;
  if (++group.ended == request_.group_size && group.node >= 0) {
    close(group.node);
    group.node = -1;
  }
}

}  // namespace temper
