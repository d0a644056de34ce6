#pragma once

#include <cstdint>
#include <span>

#include "temper/rollout/engine.h"

namespace temper {

/// Pages of a KvStore that a request is served from.
struct KvNeed {
  int64_t least = 0;   ///< One prompt with one completion: fewer cannot work.
  int64_t wanted = 0;  ///< All that run at a time: more would lie idle.
};

/// What `prompt_tokens.size()` prompts with `group_size` completions each need, every completion
/// taken as `max_new_tokens` long. At most `max_sequences` completions run at a time, so no more
/// groups than that have their prompt in the store.
[[nodiscard]] KvNeed kv_need(std::span<const int64_t> prompt_tokens, int64_t group_size,
                             const RolloutConfig& config);

/// Pages that the engine allocates: `wanted`, or what `kv_memory_mb` holds if that is less.
/// @throws Error when not even `least` fit.
[[nodiscard]] int64_t kv_pages(const KvNeed& need, const RolloutConfig& config,
                               const ModelConfig& model);

}  // namespace temper
