#include "temper/objective/offline_objectives.h"

#include "temper/objective/dpo.h"
#include "temper/objective/sft.h"

namespace temper {

const std::vector<OfflineObjectiveEntry>& offline_objectives() {
  static const std::vector<OfflineObjectiveEntry> table = {
      offline_objective<Sft>("sft", "Likelihood of the answers, a mean over the step's tokens."),
      offline_objective<Dpo>("dpo", "Pairs of answers against a reference; many losses, or several."),
  };
  return table;
}

}  // namespace temper
