#include "temper/trainer/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <string_view>
#include <vector>

#include "temper/core/error.h"

namespace temper {
namespace {

constexpr int kBarWidth = 20;

template <class... Args>
std::string formatted(const char* format, Args... args) {
  std::array<char, 128> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, args...);
  return buffer.data();
}

const double* find(const Metrics& metrics, const char* name) {
  const auto it = metrics.find(name);
  return it == metrics.end() ? nullptr : &it->second;
}

/// The first of `names` that was measured, under `label`.
void add_first(std::vector<std::string>& parts, const Metrics& metrics, const char* label,
               std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const double* value = find(metrics, name)) {
      parts.push_back(formatted("%s %.4g", label, *value));
      return;
    }
  }
}

std::string bar(int64_t step, int64_t total) {
  const double share = total > 0 ? static_cast<double>(step) / static_cast<double>(total) : 0.0;
  const int filled = std::clamp(static_cast<int>(share * kBarWidth), 0, kBarWidth);
  std::string text(static_cast<size_t>(filled), '=');
  if (filled < kBarWidth) text += '>';
  text.resize(kBarWidth, ' ');
  return "[" + text + "]";
}

int terminal_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 100;
}

}  // namespace

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "-";
  const auto s = static_cast<int64_t>(std::min(seconds, 1e12) + 0.5);
  if (s < 60) return formatted("%" PRId64 "s", s);
  if (s < 3600) return formatted("%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
  if (s < 86400) return formatted("%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
  return formatted("%" PRId64 "d%02" PRId64 "h", s / 86400, s / 3600 % 24);
}

std::string format_progress(const StepEvent& event, double mean_seconds, int width) {
  std::vector<std::string> parts;
  parts.push_back(formatted("%s %" PRId64 "/%" PRId64, bar(event.step, event.total_steps).c_str(),
                            event.step, event.total_steps));
  const Metrics& m = event.metrics;
  const bool has_reward = m.contains("reward") || m.contains("objective/scores");
  if (has_reward) {
    add_first(parts, m, "reward", {"reward", "objective/scores"});
  } else {
    add_first(parts, m, "loss", {"loss"});
    add_first(parts, m, "accuracy", {"rewards/accuracies", "accuracy", "mean_token_accuracy"});
  }
  add_first(parts, m, "kl", {"kl", "objective/kl"});
  add_first(parts, m, "mismatched", {"sampling/mismatched_tokens"});
  for (const char* name : {"tokens_per_second", "rollout/tokens_per_second"}) {
    const double* rate = find(m, name);
    if (rate == nullptr) continue;
    parts.push_back(formatted("%.0f tok/s", *rate));
    break;
  }
  parts.push_back(formatted("%.2f s/step", event.seconds));
  const double left = mean_seconds * static_cast<double>(event.total_steps - event.step);
  parts.push_back("left " + format_duration(left));

  // What does not fit is left out from the end, so that a rewritten line never wraps.
  std::string out;
  for (const std::string& part : parts) {
    const size_t size = out.size() + part.size() + (out.empty() ? 0 : 2);
    if (size > static_cast<size_t>(std::max(width, 0))) break;
    out += (out.empty() ? "" : "  ") + part;
  }
  return out;
}

ProgressObserver::ProgressObserver(std::ostream& out, bool rewrite, int width)
    : out_(out), rewrite_(rewrite), width_(width) {}

ProgressObserver::ProgressObserver()
    : ProgressObserver(std::cerr, ::isatty(STDERR_FILENO) != 0, terminal_width()) {}

void ProgressObserver::line(const std::string& text) {
  if (bar_shown_) out_ << "\r\x1b[K";
  bar_shown_ = false;
  out_ << text << '\n' << std::flush;
}

void ProgressObserver::on_start(const RunInfo& info) {
  line(concat("model: ", info.model));
  line(concat("run:   ", info.folder.string(), info.start_step > 0 ? ", resumed after step " : "",
              info.start_step > 0 ? std::to_string(info.start_step) : ""));
}

void ProgressObserver::on_step(const StepEvent& event) {
  mean_seconds_ = mean_seconds_ == 0 ? event.seconds : 0.9 * mean_seconds_ + 0.1 * event.seconds;
  const std::string text = format_progress(event, mean_seconds_, width_ - 1);
  if (!rewrite_) {
    line(text);
    return;
  }
  out_ << '\r' << text << "\x1b[K" << std::flush;
  bar_shown_ = true;
}

void ProgressObserver::on_eval(const EvalEvent& event) {
  std::string text = concat("eval after step ", event.step, ", ", event.data, ":");
  if (event.count > 0) {
    const double share = static_cast<double>(event.correct) / static_cast<double>(event.count);
    text += formatted(" %" PRId64 " of %" PRId64 " right (%.1f %%)", event.correct, event.count,
                      100 * share);
  }
  for (const auto& [name, value] : event.metrics) {
    text += formatted(" %s %.4g", name.c_str(), value);
  }
  line(text);
}

void ProgressObserver::on_checkpoint(int64_t step, const std::filesystem::path& folder) {
  line(concat("checkpoint of step ", step, ": ", folder.string()));
}

void ProgressObserver::on_alarm(const Alarm& alarm) {
  line(concat(alarm.stop ? "STOP" : "warning", " [", alarm.kind, "] step ", alarm.step, ": ",
              alarm.sentence));
}

void ProgressObserver::on_end(const EndEvent& event) {
  line(concat(event.completed ? "done: " : "stopped: ", event.step, " of ", event.total_steps,
              " steps in ", format_duration(event.seconds), event.reason.empty() ? "" : ", ",
              event.reason));
}

}  // namespace temper
