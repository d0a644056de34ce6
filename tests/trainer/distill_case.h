#pragma once

#include <fstream>

#include "temper/trainer/adapter_run.h"
#include "temper/trainer/distill.h"
#include "tiny_model.h"

namespace temper::testing_trainer {

/// Conversations of one question and its answer, as JSON lines.
inline std::string question_lines(int count, bool answers = true) {
  std::string out;
  for (int i = 0; i < count; ++i) {
    const std::string question = "say" + std::string(static_cast<size_t>(i % 4), '!') + std::to_string(i);
    nlohmann::ordered_json row{{"prompt", {{{"role", "user"}, {"content", question}}}}};
    if (answers) {
      row["completion"] = {{{"role", "assistant"}, {"content", std::string(1 + i % 5, 'a') + "b"}}};
    }
    out += row.dump() + "\n";
  }
  return out;
}

inline DistillRows distill_rows(const PolicyModel& policy, const std::string& lines,
                                const std::string& system, bool needs_prompt = true) {
  CompletionReadOptions read;
  read.form = "any";
  DistillTokens how;
  how.system_prompt = system;
  how.needs_prompt = needs_prompt;
  return tokenize_distill_rows(parse_completions(lines, "rows.jsonl", read), policy.text(), how);
}

/// A trainer's parts: 8 rows a step, the file's answers, a teacher that is told something.
inline DistillTrainer::Parts distill_parts(const PolicyModel& policy,
                                           const std::string& system = "Be kind.") {
  DistillTrainer::Parts p;
  p.config.lambda = 0;
  p.rollout.max_new_tokens = 6;
  p.optimizer.weight_decay = 0;
  p.schedule = {.shape = "constant", .learning_rate = 0.01};
  p.data = distill_rows(policy, question_lines(24), system);
  p.held_out = distill_rows(policy, question_lines(7), system).rows;
  p.total_steps = 20;
  p.seed = 11;
  return p;
}

}  // namespace temper::testing_trainer
