#include "temper/objective/offline_objectives.h"

#include "temper/objective/bco.h"
#include "temper/objective/cpo.h"
#include "temper/objective/dpo.h"
#include "temper/objective/kto.h"
#include "temper/objective/nash_md.h"
#include "temper/objective/orpo.h"
#include "temper/objective/sft.h"
#include "temper/objective/simpo.h"
#include "temper/objective/xpo.h"

namespace temper {

const std::vector<OfflineObjectiveEntry>& offline_objectives() {
  static const std::vector<OfflineObjectiveEntry> table = {
      offline_objective<Sft>("sft", "Likelihood of the answers, a mean over the step's tokens."),
      offline_objective<Dpo>("dpo",
                             "Pairs of answers against a reference; many losses, or several."),
      offline_objective<Kto>("kto", "Single answers, each desirable or not, against a reference."),
      offline_objective<Bco>("bco", "A classifier of desirable answers by their implicit rewards."),
      offline_objective<Cpo>("cpo", "Pairs without a reference, and the preferred's likelihood."),
      offline_objective<Simpo>("simpo", "Pairs without a reference, by mean log-probs, a margin."),
      offline_objective<Orpo>("orpo", "Likelihood of the preferred and an odds ratio, in one."),
  };
  return table;
}

const std::vector<OfflineObjectiveEntry>& online_preference_objectives() {
  static const std::vector<OfflineObjectiveEntry> table = {
      offline_objective<Dpo>("dpo", "Pairs that the policy sampled, against a reference."),
      offline_objective<Xpo>("xpo", "Pairs of the policy's and the reference's answer; explores."),
      offline_objective<NashMd>("nash_md", "Policy gradient of the chance to beat a mixture."),
  };
  return table;
}

}  // namespace temper
