#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "temper/data/dataset.h"

namespace temper {

/// What to train on: a generated task, or a file in the shape that a task expects.
struct TaskConfig {
  std::string name = "arithmetic";
  int64_t level = 1;
  int64_t seed = 42;
  int64_t train_size = 0;
  int64_t held_out_size = 0;
  std::string prompt_template;
  std::string system_prompt;
  std::string form = "auto";
  std::string path;
  double held_out_fraction = 0.05;
  ReadOptions read;

  template <class V>
  void visit(V&& v) {
    v(name, "name", "Task: arithmetic (generated), gsm8k or jsonl (from data.path).");
    v(level, "level", "Level of a generated task, 1 (easiest) to 5.");
    v(seed, "seed", "Seed of the generated questions and of the held-out choice.");
    v(train_size, "train_size",
      "Training prompts; 0: as many as there are, 10000 at most, or all "
      "rows of a file.");
    v(held_out_size, "held_out_size",
      "Held-out prompts of a generated task; 0: 200, or a fifth of "
      "a task with fewer than 500 questions.");
    v(prompt_template, "prompt_template", "Text with one {question}; empty: the task's own.");
    v(system_prompt, "system_prompt", "Text of a system turn before the question; empty: none.");
    v(form, "form",
      "chat: a user turn; text: a bare string; auto: chat for arithmetic and gsm8k, "
      "as the file has it for jsonl.",
      {"auto", "chat", "text"});
    v(path, "path", "File for the tasks that read one (JSON Lines or a JSON array, may be gzip).");
    v(held_out_fraction, "held_out_fraction", "Share of a file's prompts held out, in [0, 1).");
    v(read, "read");
  }
};

/// Prompts to train on, prompts never trained on, and the rewards that fit (names of
/// `builtin_rewards`).
struct Task {
  Dataset train;
  Dataset held_out;
  std::vector<std::string> default_rewards;
};

/// A kind of task.
struct TaskInfo {
  std::string name;
  std::string doc;  ///< One sentence.
  Task (*make)(const TaskConfig&);
};

/// All tasks, by name.
[[nodiscard]] const std::vector<TaskInfo>& tasks();

/// Builds the task that `config.name` names. The same config gives the same rows on every machine.
/// No prompt is in both parts.
/// @throws Error for an unknown name (naming the nearest), a level or size that the task cannot
/// give, a template without {question}, or a file that cannot be read.
[[nodiscard]] Task make_task(const TaskConfig& config);

/// A question and its answer.
struct Question {
  std::string text;    ///< Such as "7 + 5".
  std::string answer;  ///< Such as "12"; never negative.
};

/// Every arithmetic question of a level, once, grouped by kind; no result is negative.
///   1: a + b, one digit each (100)             2: a + b and a - b up to 20 (672)
///   3: a + b and a - b, two digits (12195)     4: level 3 and a * b, 2..12 by 2..99 (13273)
///   5: two steps over 1..12: a + b + c, a + b - c, a - b + c, a * b + c, a * b - c, (a + b) * c
/// @throws Error unless `level` is in 1..5.
[[nodiscard]] std::vector<std::vector<Question>> arithmetic_questions(int64_t level);

}  // namespace temper
