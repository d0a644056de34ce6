#include "temper/rollout/engine.h"

#include <utility>

#include "sampling_run.h"

namespace temper {

RolloutEngine::RolloutEngine(CausalLM& lm, const ModelText& text, RolloutConfig config)
    : lm_(lm), text_(text), config_(std::move(config)) {
  config_.validate();
}

std::vector<Sample> RolloutEngine::generate(const RolloutRequest& request,
                                            const OnToken& on_token) {
  return sample_request({lm_, text_, {}}, config_, request, on_token, stats_);
}

}  // namespace temper
