#pragma once

#include <string>

namespace temper {

/// Who says which of the policy's answers is better.
struct LabelerConfig {
  std::string kind = "reward";
  std::string link = "step";
  double missing_eos_penalty = 0;

  template <class V>
  void visit(V&& v) {
    v(kind, "kind",
      "reward: the weighted sum of the rewards, rules (reward), models (reward_model) and a judge "
      "alike. judge: the judge alone (judge.model); rewards are then for evaluations only.",
      {"reward", "judge"});
    v(link, "link",
      "How two marks become P(the first is preferred), which Nash-MD learns from: step, 1, 1/2 or "
      "0; or sigmoid of their difference, which is what marks of reward models mean.",
      {"step", "sigmoid"});
    v(missing_eos_penalty, "missing_eos_penalty",
      "Taken off the mark of an answer that the length limit cut; 0: nothing.");
  }
};

}  // namespace temper
