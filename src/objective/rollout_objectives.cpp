#include "temper/objective/rollout_objectives.h"

#include "temper/objective/bnpo.h"
#include "temper/objective/cispo.h"
#include "temper/objective/dapo.h"
#include "temper/objective/dr_grpo.h"
#include "temper/objective/grpo.h"
#include "temper/objective/gspo.h"
#include "temper/objective/luspo.h"
#include "temper/objective/ppo.h"
#include "temper/objective/sapo.h"
#include "temper/objective/vespo.h"

namespace temper {

const std::vector<RolloutObjectiveEntry>& rollout_objectives() {
  static const std::vector<RolloutObjectiveEntry> table = {
      rollout_objective<Dapo>("dapo", "Clipped surrogate, mean over the tokens of the step."),
      rollout_objective<Grpo>("grpo", "Clipped surrogate, mean over completions of token means."),
      rollout_objective<DrGrpo>("dr_grpo", "Clipped surrogate, divided by a constant length."),
      rollout_objective<Bnpo>("bnpo", "Clipped surrogate, token mean of the batch; here as dapo."),
      rollout_objective<Gspo>("gspo", "GRPO with one narrowly clipped ratio a completion."),
      rollout_objective<Luspo>("luspo", "One ratio a completion, completions weighted by length."),
      rollout_objective<Cispo>("cispo", "REINFORCE weighted by the capped ratio; clips no token."),
      rollout_objective<Sapo>("sapo", "A sigmoid gate in the place of the clip."),
      rollout_objective<Vespo>("vespo", "REINFORCE weighted by a bump over the sequence's ratio."),
      rollout_objective<Ppo>("ppo", "Clipped surrogate for a critic's advantages; dual clipping."),
  };
  return table;
}

}  // namespace temper
