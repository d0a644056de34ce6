#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "temper/trainer/observer.h"

namespace temper {

/// Whether a metric depends on the machine's clock or memory rather than on the run: the names
/// "time", "seconds" and "step_time", names that begin with "time/", and names that end in "_time",
/// "_seconds", "_per_second" or "_resident_bytes". All other metrics of a resumed run equal those
/// of the run that was never interrupted, to the bit.
[[nodiscard]] bool is_wall_clock(std::string_view name);

/// One line for metrics.jsonl: step, time, seconds, epoch, then the metrics by name. Numbers that
/// are not finite become null, text that is not UTF-8 gets replacement characters.
[[nodiscard]] std::string metrics_line(const StepEvent& event, double unix_seconds);

/// Keeps the lines of a JSON-lines file whose "step" is at most `last_step`, drops the others and
/// anything that is no JSON object with a step, such as the half line of a killed process. Rewrites
/// the file atomically, and only if something was dropped. A missing file is fine.
/// @return the number of lines dropped.
int64_t keep_lines_up_to(const std::filesystem::path& path, int64_t last_step);

/// Writes metrics.jsonl, completions.jsonl, eval.jsonl and alarms.jsonl into the run folder, one
/// line an event, each handed to the system at once; `on_checkpoint` and `on_end` also wait for the
/// disk. On resume from step k, lines after step k are dropped first, so the files end as those of
/// an uninterrupted run except for `is_wall_clock` fields.
class JsonlObserver : public Observer {
 public:
  using Clock = std::function<double()>;  ///< Seconds since 1970.

  /// @param clock  Replaced in tests; by default the system clock.
  explicit JsonlObserver(Clock clock = {});
  ~JsonlObserver() override;
  void on_start(const RunInfo& info) override;
  void on_step(const StepEvent& event) override;
  void on_eval(const EvalEvent& event) override;
  void on_checkpoint(int64_t step, const std::filesystem::path& folder) override;
  void on_alarm(const Alarm& alarm) override;
  void on_end(const EndEvent& event) override;

 private:
  struct Files;
  Clock clock_;
  std::unique_ptr<Files> files_;
};

}  // namespace temper
