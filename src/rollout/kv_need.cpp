#include "temper/rollout/kv_need.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "temper/core/error.h"
#include "temper/nn/kv_store.h"

namespace temper {

KvNeed kv_need(std::span<const int64_t> prompt_tokens, int64_t group_size,
               const RolloutConfig& config) {
  KvNeed need;
  if (prompt_tokens.empty()) return need;
  std::vector<int64_t> pages;
  for (const int64_t tokens : prompt_tokens) pages.push_back(KvStore::pages_for(tokens));
  std::sort(pages.begin(), pages.end(), std::greater<>());
  const int64_t completion = KvStore::pages_for(config.max_new_tokens);
  const int64_t groups = std::min<int64_t>(std::ssize(pages), config.max_sequences);
  need.least = pages.front() + completion;
  need.wanted = completion * std::min(std::ssize(pages) * group_size, config.max_sequences);
  for (int64_t g = 0; g < groups; ++g) need.wanted += pages[static_cast<size_t>(g)];
  return need;
}

int64_t kv_pages(const KvNeed& need, const RolloutConfig& config, const ModelConfig& model) {
  const int64_t page = KvStore::page_bytes(model.layers, model.kv_heads * model.head_dim);
  const int64_t bound = (config.kv_memory_mb << 20) / page;
  TEMPER_CHECK(need.least <= bound, "[rollout] rollout.kv_memory_mb=", config.kv_memory_mb,
               " is too small: one prompt with one completion needs ",
               (need.least * page + (1 << 20) - 1) >> 20, " MiB");
  return std::min(need.wanted, bound);
}

}  // namespace temper
