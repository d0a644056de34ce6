#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "temper/nn/kv_store.h"
#include "temper/nn/token_batch.h"
#include "temper/rollout/engine.h"

namespace temper {

/// Decides which tokens the next forward computes, within the KvStores' memory. Stores of several
/// models that read the same texts hold the same nodes: what is done to one is done to all.
/// Older groups go first; when memory runs out the youngest running sequence gives its pages back
/// and is computed again later, so the oldest always gets on.
class Scheduler {
 public:
  /// @param stores  empty, with equally many pages.
  Scheduler(const RolloutRequest& request, const RolloutConfig& config,
            std::vector<KvStore*> stores, RolloutStats& stats);

  /// A row of the next forward that tokens are drawn from.
  struct Draw {
    int64_t sequence;
    int32_t row;  ///< In the batch, or -1: the group's stored prompt row.
    int64_t group;
  };
  struct Work {
    TokenBatch batch;
    std::vector<Draw> draws;
    std::vector<std::pair<int64_t, int32_t>> finished_prompts;  ///< (group, batch row of its end)
  };
  /// The next forward; empty when all is done.
  [[nodiscard]] Work next();
  /// Tells what was drawn for a sequence: the completion goes on, or it has ended.
  void record(int64_t sequence, int32_t token, bool ended);

  [[nodiscard]] bool done() const { return ended_ == static_cast<int64_t>(sequences_.size()); }

 private:
  struct Group {
    int32_t node = -1;
    int64_t fed = 0;     // Prompt tokens in the store.
    bool ready = false;  // Its last hidden row is with the engine, also when its pages are gone.
    int64_t ended = 0;   // Completions that are through.
  };
  struct Sequence {
    int32_t node = -1;
    int64_t fed = 0;  // Completion tokens in the store.
    bool ended = false;
    std::vector<int32_t> ids;
  };
  [[nodiscard]] const std::vector<int32_t>& prompt(int64_t group) const {
    return request_.prompts[static_cast<size_t>(group)];
  }
  [[nodiscard]] int32_t open(int32_t parent);
  void close(int32_t node);
  [[nodiscard]] bool reserve(int32_t node, int64_t rows);
  [[nodiscard]] bool make_room(int32_t node, int64_t rows, int64_t keep_from);
  [[nodiscard]] bool preempt_after(int64_t sequence);
  [[nodiscard]] bool feed_prompt(int64_t group, int64_t& budget, Work& work);
  [[nodiscard]] bool feed_sequence(int64_t sequence, Work& work);
  void drop_idle_prompts(int64_t keep_group);
  void append_rows(int32_t node, std::span<const int32_t> ids, int64_t position, Work& work);

  const RolloutRequest& request_;
  const RolloutConfig& config_;
  std::vector<KvStore*> stores_;
  RolloutStats& stats_;
  std::vector<Group> groups_;
  std::vector<Sequence> sequences_;
  int64_t ended_ = 0;
};

}  // namespace temper
