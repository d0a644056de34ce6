#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "temper/trainer/observer.h"

namespace temper {

/// "42s", "3m07s", "2h05m" or "3d04h"; "-" for a negative or non-finite number of seconds.
[[nodiscard]] std::string format_duration(double seconds);

/// One line on a step: a bar, step of total, reward (or the loss where there is no reward), KL and
/// mismatched tokens if measured, tokens a second, seconds a step, time left. Never longer than
/// `width` columns; no line feed.
/// @param mean_seconds  Smoothed seconds a step, for the time left.
[[nodiscard]] std::string format_progress(const StepEvent& event, double mean_seconds, int width);

/// Shows a run on a console: on a terminal one line that is rewritten, elsewhere one line a step.
/// Alarms, evaluations and checkpoints get lines of their own.
class ProgressObserver : public Observer {
 public:
  /// @param out     Where to write; outlives the observer.
  /// @param rewrite Rewrite one line (a terminal) instead of adding lines.
  /// @param width   Columns of the terminal.
  ProgressObserver(std::ostream& out, bool rewrite, int width = 100);
  /// On standard error, with what it is found to be.
  ProgressObserver();

  void on_start(const RunInfo& info) override;
  void on_step(const StepEvent& event) override;
  void on_eval(const EvalEvent& event) override;
  void on_checkpoint(int64_t step, const std::filesystem::path& folder) override;
  void on_alarm(const Alarm& alarm) override;
  void on_end(const EndEvent& event) override;

 private:
  void line(const std::string& text);

  std::ostream& out_;
  bool rewrite_;
  int width_;
  bool bar_shown_ = false;
  double mean_seconds_ = 0;
};

}  // namespace temper
