#include "report_charts.h"

#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "temper/core/error.h"
#include "temper/trainer/report.h"
#include "temper/trainer/svg_chart.h"

namespace temper {
namespace {

constexpr size_t kMostOtherCharts = 60;

/// A chart of the page: which metrics it shows and how to read it.
struct ChartSpec {
  const char* title;
  const char* note;
  std::vector<const char*> metrics;  ///< A name, or "prefix*suffix" for all that match.
  bool from_zero = false;
};

/// What is learned.
std::vector<ChartSpec> learning_charts() {
  return {
      {"Reward",
       "Mean over all completions of a step. This is what training raises.",
       {"reward", "objective/scores"}},
      {"Rewards by function", "Mean of each reward before weights.", {"rewards/*/mean"}},
      {"Preferred and rejected",
       "Implicit rewards of both answers, and the difference.",
       {"rewards/chosen", "rewards/rejected", "rewards/margins"}},
      {"Preference accuracy",
       "Share of pairs whose preferred answer is ranked higher.",
       {"rewards/accuracies", "accuracy"}},
      {"Token accuracy",
       "Share of target tokens that the model ranks first.",
       {"mean_token_accuracy"}},
      {"Given answers",
       "Mean probability that the policy writes an answer of probe.path.",
       {"probe/probability"},
       true},
      {"KL to the reference",
       "How far the policy is from the model it started as, nats a token.",
       {"kl"},
       true},
      {"KL of a completion",
       "The same over whole completions, nats, before the step's updates. What a KL controller "
       "holds.",
       {"objective/kl"},
       true},
      {"KL coefficient", "Weight of the KL penalty in the reward or the loss.", {"kl_coef"}, true},
      {"Value error",
       "Mean of half the squared distance between values and returns.",
       {"loss/value_avg"},
       true},
      {"Explained variance",
       "Share of the returns' variance that the values knew: 1 is all, 0 is none.",
       {"critic/vf_explained_var"}},
  };
}

/// How it is learned.
std::vector<ChartSpec> process_charts() {
  return {
      {"Entropy",
       "Of the next-token distribution, nats. Near 0: no more exploration.",
       {"entropy", "objective/entropy"},
       true},
      {"Completion length",
       "Tokens: mean, shortest and longest of a step.",
       {"completions/mean_length", "completions/min_length", "completions/max_length"},
       true},
      {"Cut off",
       "Share of completions that reached the length limit.",
       {"completions/clipped_ratio"},
       true},
      {"Groups without signal",
       "Share of groups whose completions all got the same reward.",
       {"frac_reward_zero_std"},
       true},
      {"Spread of the reward",
       "Standard deviation over a step's completions.",
       {"reward_std"},
       true},
      {"Clipped tokens",
       "Share of tokens outside the clip range: below, above, both.",
       {"clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"},
       true},
      {"Gradient norm", "Before clipping.", {"grad_norm"}, true},
      {"Loss",
       "Near 0 is expected where advantages are centred: watch the reward.",
       {"loss", "loss/policy_avg"}},
      {"Learning rate", "As applied in each step.", {"learning_rate", "lr"}, true},
      {"Speed", "Tokens a second, by phase.", {"tokens_per_second", "*/tokens_per_second"}, true},
      {"Seconds a step", "Wall-clock time.", {"step_time"}, true},
      {"Mismatched tokens",
       "Tokens whose log-probability differs between sampling and training. "
       "Must be 0.",
       {"sampling/mismatched_tokens"},
       true},
  };
}

const std::vector<ChartSpec>& chart_specs() {
  static const std::vector<ChartSpec> specs = [] {
    std::vector<ChartSpec> all = learning_charts();
    const std::vector<ChartSpec> rest = process_charts();
    all.insert(all.end(), rest.begin(), rest.end());
    return all;
  }();
  return specs;
}

bool matches(std::string_view pattern, std::string_view name) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return name == pattern;
  const std::string_view head = pattern.substr(0, star), tail = pattern.substr(star + 1);
  return name.size() > head.size() + tail.size() && name.starts_with(head) && name.ends_with(tail);
}

/// What tells the series of one chart apart: what the star of a pattern stands for, or the name
/// without the part that all of them begin with.
std::string series_label(std::string_view pattern, const std::string& name, bool alone) {
  const size_t star = pattern.find('*');
  if (star != std::string_view::npos) {
    return name.substr(star, name.size() - pattern.size() + 1);
  }
  const size_t slash = name.find('/');
  return alone || slash == std::string::npos ? name : name.substr(slash + 1);
}

std::string card(const std::string& title, const std::string& note, const Chart& chart) {
  std::string out = concat("<div class=\"card\"><h3>", html_escape(title),
                           "</h3><p class=\"note\">", html_escape(note), "</p>");
  if (chart.series.size() > 1) {
    out += "<div class=\"legend\">";
    for (size_t i = 0; i < chart.series.size(); ++i) {
      out += concat("<span class=\"s", i % kSeriesColors, "\">", html_escape(chart.series[i].name),
                    "</span>");
    }
    out += "</div>";
  }
  return out + svg_chart(chart) + "</div>";
}

/// Alarms as vertical lines; notes are no alarms.
std::vector<ChartMark> marks_of(const RunData& run) {
  std::vector<ChartMark> marks;
  for (const Alarm& alarm : run.alarms) {
    if (alarm.kind.starts_with("note/") || marks.size() >= 20) continue;
    marks.push_back(
        {static_cast<double>(alarm.step), concat("step ", alarm.step, ": ", alarm.sentence)});
  }
  return marks;
}

}  // namespace

std::string known_metric_charts(const RunData& run, std::set<std::string>& drawn) {
  std::string out;
  for (const ChartSpec& spec : chart_specs()) {
    Chart chart;
    chart.from_zero = spec.from_zero;
    chart.marks = marks_of(run);
    for (const char* pattern : spec.metrics) {
      for (const auto& [name, points] : run.metrics) {
        if (!matches(pattern, name)) continue;
        chart.series.push_back({series_label(pattern, name, spec.metrics.size() == 1), points});
        drawn.insert(name);
      }
    }
    if (!chart.series.empty()) out += card(spec.title, spec.note, chart);
  }
  return out;
}

std::string eval_chart(const RunData& run) {
  Chart chart;
  chart.show_points = true;
  std::map<std::string, std::vector<ChartPoint>> by_data;
  for (const EvalRecord& e : run.evals) {
    if (e.count == 0) continue;
    const Interval i = wilson_interval(e.correct, e.count);
    by_data[e.data.empty() ? "accuracy" : e.data].push_back(
        {static_cast<double>(e.step), static_cast<double>(e.correct) / static_cast<double>(e.count),
         std::pair(i.low, i.high)});
  }
  for (auto& [name, points] : by_data) chart.series.push_back({name, std::move(points)});
  if (chart.series.empty()) return "";
  return card("Held-out accuracy",
              "Share of right answers on data that is never trained on, with the 95 % interval.",
              chart);
}

std::string other_metric_charts(const RunData& run, const std::set<std::string>& drawn) {
  std::string charts;
  size_t count = 0;
  for (const auto& [name, points] : run.metrics) {
    if (drawn.contains(name) || name == "epoch" || name == "seconds" || name.starts_with("time/")) {
      continue;
    }
    if (++count > kMostOtherCharts) continue;
    Chart chart;
    chart.series.push_back({name, points});
    charts += card(name, "", chart);
  }
  if (count == 0) return "";
  const std::string left_out =
      count > kMostOtherCharts ? concat(", ", kMostOtherCharts, " of ", count, " shown") : "";
  return concat("<h2>Everything else</h2><details><summary>Other metrics (", count, left_out,
                ")</summary><div class=\"charts\">", charts, "</div></details>");
}

}  // namespace temper
