#include "temper/trainer/report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <set>
#include <utility>

#include "report_charts.h"
#include "report_data.h"
#include "report_style.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/trainer/progress.h"
#include "temper/version.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPromptBytes = 1500;
constexpr size_t kCompletionBytes = 4000;
constexpr size_t kConfigValueBytes = 2000;

double mean_of(const std::vector<ChartPoint>& points, size_t begin, size_t end) {
  double sum = 0;
  double count = 0;
  for (size_t i = begin; i < end; ++i) {
    if (!std::isfinite(points[i].y)) continue;
    sum += points[i].y;
    count += 1;
  }
  return count > 0 ? sum / count : std::nan("");
}

const std::vector<ChartPoint>* find(const RunData& run, const char* name) {
  const auto it = run.metrics.find(name);
  return it == run.metrics.end() || it->second.empty() ? nullptr : &it->second;
}

std::string tile(const std::string& label, const std::string& value, const std::string& more) {
  return concat("<div class=\"tile\"><div class=\"label\">", html_escape(label),
                "</div><div class=\"value\">", html_escape(value), "</div><div class=\"more\">",
                html_escape(more), "</div></div>");
}

/// "first tenth -> last tenth" of a metric, over at least one step.
std::string change_tile(const RunData& run, const char* name, const char* label) {
  const auto* points = find(run, name);
  if (points == nullptr) return "";
  const size_t part = std::max<size_t>(1, points->size() / 10);
  return tile(
      label,
      short_number(mean_of(*points, 0, part)) + " \xE2\x86\x92 " +
          short_number(mean_of(*points, points->size() - part, points->size())),
      part == 1 ? "first and last step" : concat("means of the first and last ", part, " steps"));
}

std::string eval_tile(const RunData& run) {
  std::vector<const EvalRecord*> judged;
  for (const EvalRecord& e : run.evals) {
    if (e.count > 0 && (judged.empty() || e.data == judged[0]->data)) judged.push_back(&e);
  }
  if (judged.empty()) return "";
  const auto percent = [](const EvalRecord& e) {
    return 100 * static_cast<double>(e.correct) / static_cast<double>(e.count);
  };
  const EvalRecord& last = *judged.back();
  const Interval i = wilson_interval(last.correct, last.count);
  const std::string before =
      judged.size() > 1 ? short_number(std::round(10 * percent(*judged[0])) / 10) + " \xE2\x86\x92 "
                        : "";
  return tile("Held-out accuracy",
              before + short_number(std::round(10 * percent(last)) / 10) + " %",
              concat("now ", last.correct, " of ", last.count, "; 95 % interval ",
                     std::lround(100 * i.low), " to ", std::lround(100 * i.high), " %"));
}

std::string tiles(const RunData& run) {
  std::string out = "<div class=\"tiles\">";
  out += change_tile(run, "reward", "Reward");
  if (find(run, "reward") == nullptr) out += change_tile(run, "loss", "Loss");
  out += eval_tile(run);
  out += change_tile(run, "kl", "KL to the reference");
  out += change_tile(run, "completions/mean_length", "Completion length");
  for (const auto& [name, what] : {std::pair("tokens_per_second", "mean over the run"),
                                   std::pair("rollout/tokens_per_second", "while sampling"),
                                   std::pair("update/tokens_per_second", "while training")}) {
    const auto* speed = find(run, name);
    if (speed == nullptr) continue;
    out +=
        tile("Tokens a second", short_number(std::round(mean_of(*speed, 0, speed->size()))), what);
  }
  if (const auto* seconds = find(run, "seconds")) {
    const double mean = mean_of(*seconds, 0, seconds->size());
    out += tile("Time", format_duration(mean * static_cast<double>(seconds->size())),
                short_number(mean) + " s a step");
  }
  return out + "</div>";
}

/// ", the last at <date and time>", or nothing for a time outside the years 1970 to 9999.
std::string utc_time(double unix_seconds) {
  constexpr double kYear10000 = 253402300800.0;
  if (!(unix_seconds > 0 && unix_seconds < kYear10000)) return "";
  const auto seconds = static_cast<std::time_t>(unix_seconds);
  std::tm parts{};
  std::array<char, 64> text{};
  gmtime_r(&seconds, &parts);
  std::strftime(text.data(), text.size(), ", the last at %Y-%m-%d %H:%M UTC", &parts);
  return text.data();
}

std::string problems(const RunData& run) {
  std::string out;
  for (const std::string& problem : run.problems) {
    out += "<p class=\"sub\">" + html_escape(problem) + "</p>";
  }
  return out;
}

std::string alarms(const RunData& run) {
  std::string out = "<h2>What stood out</h2><div class=\"alarms\">";
  if (run.alarms.empty()) {
    out += "<p class=\"sub\">Nothing: no alarm was raised.</p>";
  }
  for (const Alarm& alarm : run.alarms) {
    const bool remark = alarm.kind.starts_with("note/");
    out += concat("<div class=\"alarm", remark ? " remark" : "", "\"><b>Step ", alarm.step,
                  alarm.stop ? ", stopped" : "", "</b>", html_escape(alarm.sentence), "</div>");
  }
  return out + "</div>";
}

std::string time_split(const RunData& run) {
  constexpr std::string_view kPrefix = "time/";
  std::vector<Share> shares;
  double known = 0;
  for (const auto& [name, points] : run.metrics) {
    if (!std::string_view(name).starts_with(kPrefix)) continue;
    double sum = 0;
    for (const ChartPoint& p : points) sum += std::isfinite(p.y) && p.y > 0 ? p.y : 0;
    shares.push_back({name.substr(kPrefix.size()), sum});
    known += sum;
  }
  if (shares.empty()) return "";
  std::stable_sort(shares.begin(), shares.end(),
                   [](const Share& a, const Share& b) { return a.amount > b.amount; });
  if (const auto* seconds = find(run, "seconds")) {
    const double all = mean_of(*seconds, 0, seconds->size()) * static_cast<double>(seconds->size());
    if (all > known * 1.001) shares.push_back({"other", all - known});
    known = std::max(all, known);
  }
  std::string out = "<h2>Where the time went</h2><div class=\"card\">" + svg_shares(shares) +
                    "<div class=\"legend\">";
  for (size_t i = 0; i < shares.size(); ++i) {
    const double percent = known > 0 ? 100 * shares[i].amount / known : 0;
    out += concat("<span class=\"s", i % kSeriesColors, "\">", html_escape(shares[i].name), " ",
                  format_duration(shares[i].amount), ", ", std::lround(percent), " %</span>");
  }
  return out + "</div></div>";
}

std::string sample_card(const SampleCompletion& sample) {
  std::string out =
      concat("<div class=\"card\"><div class=\"chips\"><span>step ", sample.step, "</span>");
  for (const auto& [name, value] : sample.rewards) {
    out += concat("<span>", html_escape(shortened(name, 80)), " ", short_number(value), "</span>");
  }
  out += concat("<span>", sample.tokens, " tokens", sample.truncated ? ", cut off" : "",
                "</span></div><pre class=\"prompt\">",
                html_escape(shortened(sample.prompt, kPromptBytes)), "</pre><pre>",
                html_escape(shortened(sample.completion, kCompletionBytes)), "</pre></div>");
  return out;
}

std::string samples(const RunData& run) {
  if (run.early.empty()) return "";
  std::string out = "<h2>Completions, early and late</h2><div class=\"samples\">";
  for (const auto* list : {&run.early, &run.late}) {
    out += concat("<div><h3>", list == &run.early ? "Early" : "Late", "</h3>");
    for (const SampleCompletion& sample : *list) out += sample_card(sample);
    out += "</div>";
  }
  return out + "</div>";
}

std::string config_table(const RunData& run) {
  if (run.config.empty()) return "";
  std::string rows;
  for (const auto& [name, value] : run.config) {
    rows += concat("<tr><td>", html_escape(shortened(name, 200)), "</td><td>",
                   html_escape(shortened(value, kConfigValueBytes)), "</td></tr>");
  }
  return concat("<h2>Configuration</h2><details><summary>All ", run.config.size(),
                " settings</summary><div class=\"card\"><table>", rows, "</table></div></details>");
}

}  // namespace

Interval wilson_interval(int64_t correct, int64_t count) {
  TEMPER_CHECK(correct >= 0 && correct <= count,
               "[wilson_interval] expected 0 <= correct <= count, "
               "got ",
               correct, " of ", count);
  if (count == 0) return {};
  constexpr double kZ = 1.959963984540054;  // 97.5 % point of the normal distribution
  const auto n = static_cast<double>(count);
  const double p = static_cast<double>(correct) / n;
  const double z2 = kZ * kZ / n;
  const double middle = (p + z2 / 2) / (1 + z2);
  const double half = kZ / (1 + z2) * std::sqrt(p * (1 - p) / n + z2 / (4 * n));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

std::string report_html(const fs::path& run_folder) {
  const RunData run = read_run(run_folder);
  std::set<std::string> drawn;
  const std::string charts = eval_chart(run) + known_metric_charts(run, drawn);
  const std::string name = html_escape(run.name);
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";
  out += concat("<title>", name, " - training report</title><style>", kReportStyle,
                "</style></head><body><main><h1>", name, "</h1>");
  if (!run.metrics.empty()) {
    out += concat("<p class=\"sub\">Steps ", run.first_step, " to ", run.last_step,
                  utc_time(run.last_time), "</p>");
  }
  out += problems(run) + tiles(run) + alarms(run);
  if (!charts.empty()) out += "<h2>Curves</h2><div class=\"charts\">" + charts + "</div>";
  out += time_split(run) + samples(run) + other_metric_charts(run, drawn) + config_table(run);
  out +=
      concat("<footer>Written by Temper ", TEMPER_VERSION,
             ". Points show their numbers under the pointer; dashed lines are alarms; pale lines "
             "are single steps, strong ones their moving mean.</footer></main></body></html>\n");
  return out;
}

void write_report(const fs::path& run_folder) {
  write_file_atomically(run_folder / "report.html", report_html(run_folder));
}

}  // namespace temper
