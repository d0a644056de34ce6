#include "temper/trainer/jsonl_observer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temporary_folder.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

/// Metrics of a step that depend on the step alone, as those of a replayed run do.
Metrics metrics_of(int64_t step, double wall) {
  const auto s = static_cast<double>(step);
  return {{"reward", std::sin(s) / 3},
          {"kl", 1e-3 * s},
          {"step_time", wall},
          {"tokens_per_second", 100 / wall},
          {"time/rollout", wall / 2}};
}

void send_steps(JsonlObserver& observer, int64_t first, int64_t last, double wall) {
  for (int64_t step = first; step <= last; ++step) {
    const Metrics metrics = metrics_of(step, wall);
    const std::vector<SampleCompletion> samples{
        {step, "2+2=", concat("answer ", step), {{"correct", 1.0}}, 0.5, 3, false}};
    observer.on_step({step, 10, wall, 0.1, metrics, samples});
    if (step % 4 == 0) observer.on_alarm({step, "truncation", "cut off", false});
    if (step % 5 == 0) observer.on_eval({step, "held-out", step, 20, wall, metrics});
  }
}

RunInfo run_info(const fs::path& folder, int64_t start_step) {
  RunInfo info;
  info.folder = folder;
  info.total_steps = 10;
  info.start_step = start_step;
  return info;
}

/// The lines of a file without the fields that a clock decides.
std::string without_clock(const fs::path& path) {
  std::ifstream in(path);
  std::string out;
  for (std::string line; std::getline(in, line);) {
    const auto json = nlohmann::ordered_json::parse(line);
    for (const auto& [name, value] : json.items()) {
      if (!is_wall_clock(name)) out += name + "=" + value.dump() + " ";
    }
    out += "\n";
  }
  return out;
}

TEST(Jsonl, StepLineHasStableOrderAndNoInvalidNumbers) {
  const Metrics metrics{{"reward", 0.5},
                        {"kl", std::numeric_limits<double>::quiet_NaN()},
                        {"grad_norm", std::numeric_limits<double>::infinity()},
                        {"step", 99}};
  EXPECT_EQ(metrics_line({3, 10, 1.5, 0.25, metrics, {}}, 1700000000.5),
            "{\"step\":3,\"time\":1700000000.5,\"seconds\":1.5,\"epoch\":0.25,"
            "\"grad_norm\":null,\"kl\":null,\"reward\":0.5}\n");
}

TEST(Jsonl, WallClockNames) {
  for (const char* name : {"time", "seconds", "step_time", "time/rollout", "first_step_seconds",
                           "tokens_per_second", "peak_resident_bytes"}) {
    EXPECT_TRUE(is_wall_clock(name)) << name;
  }
  for (const char* name : {"reward", "kl", "num_tokens", "step", "timeout_share", "epoch"}) {
    EXPECT_FALSE(is_wall_clock(name)) << name;
  }
}

// A run killed after step 8 and resumed from the checkpoint of step 6 ends with the files of a run
// that was never killed, wall-clock fields apart.
TEST(Jsonl, ResumedRunEndsWithTheSameFiles) {
  const TemporaryFolder temporary;
  const fs::path whole = temporary.path() / "whole";
  const fs::path killed = temporary.path() / "killed";
  fs::create_directories(whole);
  fs::create_directories(killed);
  {
    JsonlObserver observer([] { return 1000.0; });
    observer.on_start(run_info(whole, 0));
    send_steps(observer, 1, 10, 1.0);
  }
  {
    JsonlObserver observer([] { return 2000.0; });
    observer.on_start(run_info(killed, 0));
    send_steps(observer, 1, 8, 3.0);
  }
  std::ofstream(killed / "metrics.jsonl", std::ios::app) << "{\"step\":9,\"rew";
  {
    JsonlObserver observer([] { return 3000.0; });
    observer.on_start(run_info(killed, 6));
    send_steps(observer, 7, 10, 2.0);
  }
  for (const char* name : {"metrics.jsonl", "completions.jsonl", "eval.jsonl", "alarms.jsonl"}) {
    EXPECT_FALSE(without_clock(whole / name).empty()) << name;
    EXPECT_EQ(without_clock(whole / name), without_clock(killed / name)) << name;
    EXPECT_FALSE(fs::exists(killed / (std::string(name) + ".partial"))) << name;
  }
  EXPECT_NE(read_text_file(whole / "metrics.jsonl"), read_text_file(killed / "metrics.jsonl"));
}

TEST(Jsonl, StartingOverDropsEverything) {
  const TemporaryFolder temporary;
  {
    JsonlObserver observer;
    observer.on_start(run_info(temporary.path(), 0));
    const Metrics none;
    observer.on_eval({0, "held-out", 1, 2, 0.1, none});
  }
  JsonlObserver observer;
  observer.on_start(run_info(temporary.path(), 0));
  EXPECT_EQ(read_text_file(temporary.path() / "eval.jsonl"), "");
}

TEST(Jsonl, KeepLinesDropsWhatIsNoLineOfTheRun) {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "metrics.jsonl";
  EXPECT_EQ(keep_lines_up_to(path, 5), 0);
  const std::string good = "{\"step\":1,\"a\":0.1}\n{\"step\":2}\n";
  // Other text, a step that is no integer, an array, a later step, and a line without its end that
  // parses although it was cut: "step":1 of "step":12.
  std::ofstream(path) << good << "garbage\n{\"step\":\"1\"}\n[1]\n{\"step\":3}\n{\"step\":1}";
  EXPECT_EQ(keep_lines_up_to(path, 2), 5);
  EXPECT_EQ(read_text_file(path), good);
  EXPECT_EQ(keep_lines_up_to(path, 2), 0);
  EXPECT_EQ(read_text_file(path), good);
}

TEST(Jsonl, TextThatIsNotUtf8IsStillJson) {
  const TemporaryFolder temporary;
  JsonlObserver observer([] { return 0.0; });
  observer.on_start(run_info(temporary.path(), 0));
  const Metrics none;
  const std::vector<SampleCompletion> samples{
      {1, "p\n\"q\"", "bad \xff byte", {{"r", std::nan("")}}, 0, 1, true}};
  observer.on_step({1, 1, 0, 0, none, samples});
  const auto json =
      nlohmann::ordered_json::parse(read_text_file(temporary.path() / "completions.jsonl"));
  EXPECT_EQ(json["prompt"], "p\n\"q\"");
  EXPECT_EQ(json["completion"], "bad \xef\xbf\xbd byte");
  EXPECT_TRUE(json["rewards"]["r"].is_null());
}

TEST(Jsonl, MissingFolderIsAnError) {
  JsonlObserver observer;
  EXPECT_THROW(observer.on_start(run_info("/no/such/folder", 0)), Error);
}

}  // namespace
}  // namespace temper
