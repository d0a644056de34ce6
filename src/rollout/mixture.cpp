#include "temper/rollout/mixture.h"

#include "sampling_run.h"
#include "temper/core/error.h"

namespace temper {

std::vector<Sample> sample_mixture(const MixtureModels& models, const ModelText& text,
                                   const RolloutConfig& config, const RolloutRequest& request,
                                   RolloutStats* stats) {
  config.validate();
  TEMPER_CHECK(models.share >= 0 && models.share <= 1, "[mixture] the share must be in [0, 1], got ",
               models.share);
  TEMPER_CHECK(config.temperature > 0, "[mixture] rollout.temperature must be above 0");
  TEMPER_CHECK(models.policy.config().vocab_size == models.other.config().vocab_size,
               "[mixture] the models have ", models.policy.config().vocab_size, " and ",
               models.other.config().vocab_size, " ids: they must share one vocabulary");
  RolloutStats unused;
  return sample_request({models.policy, text, {&models.other, models.share}}, config, request, {},
                        stats != nullptr ? *stats : unused);
}

}  // namespace temper
