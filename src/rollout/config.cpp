#include "temper/core/error.h"
#include "temper/rollout/engine.h"

namespace temper {

void RolloutConfig::validate() const {
  const auto check = [](bool ok, const char* key, const char* range, auto got) {
    TEMPER_CHECK(ok, "rollout.", key, " must be ", range, ", got ", got);
  };
  check(temperature >= 0 && temperature <= 100, "temperature", "in [0, 100]", temperature);
  check(temperature == 0 || temperature >= 0.01, "temperature", "0 (greedy) or at least 0.01",
        temperature);
  check(top_k >= 0, "top_k", "at least 0", top_k);
  check(top_p > 0 && top_p <= 1, "top_p", "in (0, 1]", top_p);
  check(min_p >= 0 && min_p < 1, "min_p", "in [0, 1)", min_p);
  check(repetition_penalty > 0, "repetition_penalty", "above 0", repetition_penalty);
  check(max_new_tokens >= 1, "max_new_tokens", "at least 1", max_new_tokens);
  check(max_sequences >= 1, "max_sequences", "at least 1", max_sequences);
  check(prefill_tokens >= 1, "prefill_tokens", "at least 1", prefill_tokens);
  check(kv_memory_mb >= 1 && kv_memory_mb <= int64_t{1} << 30, "kv_memory_mb", "in [1, 2^30]",
        kv_memory_mb);
  for (const auto& text : stop) {
    TEMPER_CHECK(!text.empty(), "rollout.stop must hold texts that are not empty: an empty one ",
                 "would end every completion at its first token");
  }
}

kernels::SamplingParams RolloutConfig::sampling() const {
  return {static_cast<float>(temperature), top_k, static_cast<float>(top_p),
          static_cast<float>(min_p), static_cast<float>(repetition_penalty)};
}

}  // namespace temper
