#pragma once

#include <vector>

#include "temper/rollout/engine.h"

namespace temper {

/// Two models that answer together, token by token, from policy^(1 - share) other^share made a
/// distribution (Munos et al. 2023, arXiv 2312.00886, sec. 6): softmax over (1 - share) of the
/// policy's logits plus `share` of the other's, divided by the temperature.
struct MixtureModels {
  CausalLM& policy;
  CausalLM& other;   ///< With the policy's vocabulary.
  double share = 0.5;  ///< In [0, 1].
};

/// Completions of the mixture, batched as RolloutEngine does it and with its determinism.
/// `logprobs`, `log_kept_mass` and `entropy` are those of the mixture.
///
/// What it costs: a forward of each model a token (twice a rollout of one), a store of keys and
/// values for each (they share `kv_memory_mb`), and both rows of logits written out, 16 texts at a
/// time: 128 bytes an id of the vocabulary.
/// @throws Error as RolloutEngine::generate, for a share out of range, models of different
/// vocabularies, and temperature 0.
[[nodiscard]] std::vector<Sample> sample_mixture(const MixtureModels& models, const ModelText& text,
                                                 const RolloutConfig& config,
                                                 const RolloutRequest& request,
                                                 RolloutStats* stats = nullptr);

}  // namespace temper
