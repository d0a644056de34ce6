// A judge over the tiny model, whose context is too short for the shipped templates.
#pragma once

#include <memory>
#include <string>

#include "temper/core/file.h"
#include "temper/trainer/judge.h"
#include "tiny_model.h"

namespace temper::testing_trainer {

/// Files beside the tiny model; each test program is a process of its own.
inline std::string judge_file(const std::string& name, const std::string& text) {
  const fs::path path = tiny_model() / name;
  write_file_atomically(path, text);
  return path.string();
}

inline JudgeConfig tiny_judge(const std::string& mode = "pointwise") {
  JudgeConfig c;
  c.model = "policy";
  c.mode = mode;
  c.min_mass = 0;
  c.rubric = judge_file("rubric.txt", "be fair\n");
  c.template_file =
      mode == "pointwise"
          ? judge_file("mark.txt", "{rubric}\nQ\n> {question}\nA\n> {answer}\n0-{scale}?{reply}M:")
          : judge_file("compare.txt",
                       "{rubric}\nQ\n> {question}\nA\n> {first}\nB\n> {second}\nA or B?{reply}P:");
  return c;
}

/// The policy's own model, not owned.
inline std::shared_ptr<CausalLM> borrowed(const PolicyModel& policy) {
  return {std::shared_ptr<void>(), &policy.lm()};
}

}  // namespace temper::testing_trainer
