#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/rng.h"
#include "temper/trainer/diagnosis.h"
#include "temper/trainer/jsonl_observer.h"
#include "temper/trainer/observer.h"
#include "temper/trainer/tensorboard.h"

namespace temper {

/// Metrics as a GRPO run has them: learning is steady, and the entropy breaks down at three
/// quarters.
inline Metrics synthetic_metrics(int64_t step, int64_t steps) {
  RngStream random(7, RngPurpose::kTest, static_cast<uint64_t>(step));
  const auto noise = [&](double size) { return size * (2 * random.next_uniform() - 1); };
  const double t = static_cast<double>(step) / static_cast<double>(steps);
  const double skill = 1 / (1 + std::exp(-8 * (t - 0.4)));
  Metrics m;
  m["reward"] = 0.15 + 0.75 * skill + noise(0.08);
  m["reward_std"] = 0.4 - 0.15 * skill + noise(0.03);
  m["rewards/correct/mean"] = 0.1 + 0.8 * skill + noise(0.08);
  m["rewards/format/mean"] = std::min(1.0, 0.3 + 1.5 * t + noise(0.05));
  m["frac_reward_zero_std"] = std::clamp(0.3 + 0.3 * skill + noise(0.15), 0.0, 1.0);
  m["kl"] = 0.08 * t * t + std::abs(noise(0.004));
  m["entropy"] = t < 0.75 ? 1.1 - 0.5 * t + noise(0.06) : 0.08 + std::abs(noise(0.03));
  m["completions/mean_length"] = 34 + 22 * t + noise(4);
  m["completions/min_length"] = 8 + noise(4);
  m["completions/max_length"] = 96 + noise(16);
  m["completions/clipped_ratio"] = std::max(0.0, 0.12 - 0.1 * t + noise(0.03));
  m["clip_ratio/low_mean"] = std::abs(noise(0.004));
  m["clip_ratio/high_mean"] = std::abs(noise(0.006));
  m["clip_ratio/region_mean"] = std::abs(noise(0.009));
  m["grad_norm"] = step == steps / 3 ? 30.0 : 0.7 + noise(0.3);
  m["loss"] = noise(0.003);
  m["learning_rate"] = 1e-5 * (1 - t);
  m["num_tokens"] = 4096.0 * static_cast<double>(step);
  m["sampling/mismatched_tokens"] = 0;
  m["step_time"] = 1.9 + noise(0.2);
  m["rollout/tokens_per_second"] = 2500 / (0.6 * m["step_time"]);
  m["update/tokens_per_second"] = 4096 / (0.32 * m["step_time"]);
  m["time/rollout"] = 0.6 * m["step_time"];
  m["time/update"] = 0.32 * m["step_time"];
  m["time/reward"] = 0.03 * m["step_time"];
  return m;
}

/// Writes what the observers write of a run, completions with markup included.
inline void write_synthetic_run(const std::filesystem::path& folder, int64_t steps) {
  std::filesystem::create_directories(folder);
  const std::string config =
      R"({"model":"model.gguf","seed":42,"grpo":{"group_size":8,"loss":"dapo","beta":0.02},)"
      R"("rollout":{"max_new_tokens":128,"temperature":1.0},"reward":{"functions":["correct","format"]}})";
  write_file_atomically(folder / "config.json", config);
  JsonlObserver jsonl;
  TensorBoardObserver board;
  const std::vector<Observer*> observers{&jsonl, &board};
  const auto send = [&](const auto& call) {
    for (Observer* observer : observers) call(*observer);
  };
  RunInfo info;
  info.folder = folder;
  info.config_json = config;
  info.total_steps = steps;
  send([&](Observer& o) { o.on_start(info); });
  Diagnosis diagnosis;
  const Metrics none;
  for (int64_t step = 0; step <= steps; ++step) {
    const double t = static_cast<double>(step) / static_cast<double>(steps);
    if (step > 0) {
      const Metrics metrics = synthetic_metrics(step, steps);
      std::vector<SampleCompletion> samples;
      for (int64_t i = 0; i < 3; ++i) {
        const int64_t a = 10 + step % 17 + i, b = 3 + 2 * i;
        const bool right = t > 0.5 || i == 1;
        samples.push_back(
            {step,
             concat("What is ", a, " + ", b, "? Answer inside <answer> tags."),
             concat("Let me add: ", a, " & ", b, "\n<answer>", right ? a + b : a, "</answer>"),
             {{"correct", right ? 1.0 : 0.0}, {"format", 1.0}},
             right ? 0.7 : -0.7,
             21 + i,
             !right});
      }
      send([&](Observer& o) {
        o.on_step({step, steps, metrics.at("step_time"), 2 * t, metrics, samples});
      });
      for (const Alarm& alarm : diagnosis.check(step, metrics)) {
        send([&](Observer& o) { o.on_alarm(alarm); });
      }
    }
    if (step % std::max<int64_t>(1, steps / 4) == 0) {
      const auto right = static_cast<int64_t>(24 + 110 * t);
      send([&](Observer& o) { o.on_eval({step, "held-out sums", right, 200, 4.0, none}); });
    }
  }
  send([&](Observer& o) { o.on_end({steps, steps, 600, true, ""}); });
}

}  // namespace temper
