#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/trainer/jsonl_observer.h"

namespace temper::testing_trainer {

/// A child that runs `temper` with these words; what it says is appended to `log`.
inline pid_t start_program(std::vector<std::string> words, const std::string& log) {
  words.insert(words.begin(), std::string(TEMPER_BIN_DIR) + "/temper");
  std::vector<char*> argv;
  for (auto& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child != 0) return child;
  const int out = open(log.c_str(), O_CREAT | O_APPEND | O_WRONLY, 0644);
  if (out < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0) _exit(126);
  execv(argv[0], argv.data());
  _exit(127);
}

/// Waits for the child, asking `kill_now` all the time; -1 if it was killed, else its exit code.
inline int wait_for(pid_t child, const std::function<bool()>& kill_now) {
  for (;;) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) {
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    if (kill_now()) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    usleep(300);
  }
}

/// A file of JSON lines without the clock: names as JSON, numbers as they stand.
inline std::vector<nlohmann::ordered_json> lasting_lines(const std::filesystem::path& file) {
  std::vector<nlohmann::ordered_json> out;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    nlohmann::ordered_json kept = nlohmann::ordered_json::object();
    const auto all = nlohmann::ordered_json::parse(line);
    for (const auto& [name, value] : all.items()) {
      if (!is_wall_clock(name)) kept[name] = value;
    }
    out.push_back(std::move(kept));
  }
  return out;
}

inline int64_t lines_in(const std::filesystem::path& file) {
  std::ifstream in(file);
  int64_t n = 0;
  for (std::string line; std::getline(in, line);) ++n;
  return n;
}

/// Whether a checkpoint of a step in [step, last] is being written, or was when the process ended.
inline bool is_saving(const std::filesystem::path& run, int64_t step, int64_t last) {
  for (int64_t s = step; s <= last; ++s) {
    if (std::filesystem::exists(run / "checkpoints" / concat(".step-", s, ".partial"))) return true;
  }
  return false;
}

/// How a run is killed again and again.
struct Killings {
  int rounds = 4;
  int64_t stride = 3;  ///< Steps between kills; the first comes at step 2.
  int64_t steps = 12;  ///< Of the whole run, with a checkpoint after each.
  int least = 2;       ///< Kills that must have met a living run.
};

/// Runs `temper train ...` (the words, less --output) once undisturbed and once with kills, and
/// expects the same model, metrics and evaluations of both.
inline void expect_same_after_kills(const std::filesystem::path& folder,
                                    const std::vector<std::string>& algorithm,
                                    const std::vector<std::string>& settings, const Killings& k) {
  const auto start = [&](const std::filesystem::path& output, bool resume) {
    std::vector<std::string> words = algorithm;
    words.insert(words.end(), {"--output", output.string()});
    if (resume) words.emplace_back("--resume");
    for (const std::string& s : settings) {
      if (!resume) words.insert(words.end(), {"--set", s});
    }
    return start_program(words, output.string() + ".log");
  };
  const auto log = [](const std::filesystem::path& output) {
    return read_text_file(output.string() + ".log");
  };
  const auto whole = folder / "whole", broken = folder / "broken";
  ASSERT_EQ(wait_for(start(whole, false), [] { return false; }), 0) << log(whole);
  bool resume = false;
  int kills = 0;
  for (int round = 0; round < k.rounds; ++round) {
    const int64_t step = 2 + k.stride * round;
    // Odd rounds: the moment a checkpoint's first bytes are there. Even: when its step was logged.
    const auto now = [&] {
      return round % 2 == 1 ? is_saving(broken, step, k.steps)
                            : lines_in(broken / "metrics.jsonl") >= step;
    };
    const int code = wait_for(start(broken, resume), now);
    ASSERT_TRUE(code == -1 || code == 0) << code << log(broken);
    if (code == 0) break;
    ++kills;
    resume = std::filesystem::exists(broken / "config.json");
  }
  EXPECT_GE(kills, k.least);
  ASSERT_EQ(wait_for(start(broken, resume), [] { return false; }), 0) << log(broken);
  EXPECT_EQ(read_text_file(whole / "model/model.safetensors"),
            read_text_file(broken / "model/model.safetensors"));
  EXPECT_EQ(lines_in(whole / "metrics.jsonl"), k.steps);
  for (const char* name : {"metrics.jsonl", "eval.jsonl"}) {
    EXPECT_EQ(lasting_lines(whole / name), lasting_lines(broken / name)) << name;
  }
}

}  // namespace temper::testing_trainer
