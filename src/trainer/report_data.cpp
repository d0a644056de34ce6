#include "report_data.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "temper/core/error.h"
#include "temper/core/file.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Files are hostile: these keep a report's size and the memory for it in bounds.
constexpr size_t kMaxLine = size_t{8} << 20;
constexpr double kLargestInteger = 1e15;  // exact as a double, and beyond any run
constexpr int64_t kMaxLines = 5'000'000;
constexpr size_t kMaxMetrics = 400;
constexpr size_t kMaxAlarms = 200;
constexpr size_t kMaxEvals = 2000;
constexpr size_t kMaxConfigRows = 1000;
constexpr size_t kMaxConfigBytes = size_t{4} << 20;
constexpr int kMaxDepth = 16;
constexpr size_t kSamples = 4;
constexpr size_t kSampleWindow = 64;

/// Parses without objects or arrays that are nested deeper than `kMaxDepth`.
Json parse_shallow(const std::string& text) {
  const auto keep = [](int depth, Json::parse_event_t, Json&) { return depth <= kMaxDepth; };
  return Json::parse(text, keep, false);
}

/// Calls `take` for every line that is a JSON object; it returns false for one that it cannot use.
/// @return whether the file is there.
bool for_each_line(RunData& run, const fs::path& path,
                   const std::function<bool(const Json&)>& take) {
  std::ifstream in(path, std::ios::binary);
  if (!in || !fs::is_regular_file(path)) return false;
  int64_t unread = 0;
  int64_t lines = 0;
  std::string line;
  std::vector<char> buffer(size_t{1} << 16);
  const auto finish = [&] {
    if (line.empty()) return;
    const Json json = line.size() <= kMaxLine ? parse_shallow(line) : Json();
    if (!json.is_object() || !take(json)) ++unread;
    line.clear();
    ++lines;
  };
  // getline on a file without line feeds would read all of it into memory.
  while (lines < kMaxLines && in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    const auto got = static_cast<size_t>(in.gcount());
    for (size_t i = 0; i < got; ++i) {
      if (buffer[i] == '\n') {
        finish();
      } else if (line.size() <= kMaxLine) {
        line += buffer[i];
      }
    }
  }
  finish();
  if (unread > 0) {
    run.problems.push_back(concat(path.filename().string(), ": ", unread, " of ", lines,
                                  " lines could not be read and were left out."));
  }
  return true;
}

bool integer(const Json& json, const char* name, int64_t& out) {
  const auto it = json.find(name);
  if (it == json.end() || !it->is_number_integer()) return false;
  // A number beyond int64 wraps, so its size is read as a double.
  if (std::abs(it->get<double>()) > kLargestInteger) return false;
  out = it->get<int64_t>();
  return true;
}

std::string text(const Json& json, const char* name) {
  const auto it = json.find(name);
  return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
}

void flatten(const Json& json, const std::string& name, int depth, RunData& run) {
  if (run.config.size() >= kMaxConfigRows) return;
  if (depth < kMaxDepth && json.is_object() && !json.empty()) {
    for (const auto& [key, value] : json.items()) {
      flatten(value, name.empty() ? key : name + "." + key, depth + 1, run);
    }
    return;
  }
  // Parsed shallowly, so dump does not recurse without bound.
  run.config.emplace_back(name, json.is_string()
                                    ? json.get<std::string>()
                                    : json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

bool read_config(RunData& run, const fs::path& path) {
  if (!fs::is_regular_file(path)) return false;
  try {
    const Json json = parse_shallow(read_text_file(path, kMaxConfigBytes));
    TEMPER_CHECK(json.is_object(), "it is no JSON object");
    flatten(json, "", 0, run);
  } catch (const std::exception& e) {
    run.problems.push_back(concat("config.json could not be read: ", e.what()));
  }
  return true;
}

bool read_metrics(RunData& run, const fs::path& path) {
  bool too_many = false;
  const bool found = for_each_line(run, path, [&](const Json& json) {
    int64_t step = 0;
    if (!integer(json, "step", step)) return false;
    const auto time = json.find("time");
    if (time != json.end() && time->is_number()) run.last_time = time->get<double>();
    for (const auto& [name, value] : json.items()) {
      if (name == "step" || name == "time" || !(value.is_number() || value.is_null())) continue;
      if (run.metrics.size() >= kMaxMetrics && !run.metrics.contains(name)) {
        too_many = true;
        continue;
      }
      run.metrics[name].push_back(
          {static_cast<double>(step), value.is_null() ? std::nan("") : value.get<double>()});
    }
    return true;
  });
  if (too_many) {
    run.problems.push_back(
        concat("metrics.jsonl has more than ", kMaxMetrics, " metrics; the others were left out."));
  }
  for (auto& [name, points] : run.metrics) {
    const auto before = [](const ChartPoint& a, const ChartPoint& b) { return a.x < b.x; };
    std::stable_sort(points.begin(), points.end(), before);
  }
  return found;
}

bool read_evals(RunData& run, const fs::path& path) {
  const bool found = for_each_line(run, path, [&](const Json& json) {
    EvalRecord record;
    record.data = text(json, "data");
    const bool good = integer(json, "step", record.step) &&
                      integer(json, "correct", record.correct) &&
                      integer(json, "count", record.count) && record.correct >= 0 &&
                      record.correct <= record.count;
    if (good && run.evals.size() < kMaxEvals) run.evals.push_back(std::move(record));
    return good;
  });
  std::stable_sort(run.evals.begin(), run.evals.end(),
                   [](const EvalRecord& a, const EvalRecord& b) { return a.step < b.step; });
  return found;
}

bool read_alarms(RunData& run, const fs::path& path) {
  return for_each_line(run, path, [&](const Json& json) {
    Alarm alarm;
    alarm.kind = text(json, "kind");
    alarm.sentence = text(json, "sentence");
    const auto stop = json.find("stop");
    alarm.stop = stop != json.end() && stop->is_boolean() && stop->get<bool>();
    if (!integer(json, "step", alarm.step) || alarm.sentence.empty()) return false;
    if (run.alarms.size() < kMaxAlarms) run.alarms.push_back(std::move(alarm));
    return true;
  });
}

/// Up to `kSamples`, different prompts before further completions of the same one.
std::vector<SampleCompletion> chosen(const std::deque<SampleCompletion>& from) {
  std::vector<SampleCompletion> out;
  std::set<std::string> prompts;
  for (const bool fresh : {true, false}) {
    for (const SampleCompletion& sample : from) {
      if (out.size() >= kSamples) return out;
      const bool is_new = fresh ? prompts.insert(sample.prompt).second : false;
      const auto same = [&](const SampleCompletion& s) {
        return s.prompt == sample.prompt && s.completion == sample.completion;
      };
      const bool taken = std::any_of(out.begin(), out.end(), same);
      if (fresh ? is_new : !taken) out.push_back(sample);
    }
  }
  return out;
}

bool read_completions(RunData& run, const fs::path& path) {
  std::deque<SampleCompletion> first;
  std::deque<SampleCompletion> last;  // newest first
  const bool found = for_each_line(run, path, [&](const Json& json) {
    SampleCompletion sample;
    if (!integer(json, "step", sample.step)) return false;
    sample.prompt = text(json, "prompt");
    sample.completion = text(json, "completion");
    integer(json, "tokens", sample.tokens);
    const auto truncated = json.find("truncated");
    sample.truncated = truncated != json.end() && truncated->is_boolean() && truncated->get<bool>();
    const auto rewards = json.find("rewards");
    if (rewards != json.end() && rewards->is_object()) {
      for (const auto& [name, value] : rewards->items()) {
        const bool known = value.is_number();
        sample.rewards.emplace_back(name, known ? value.get<double>() : std::nan(""));
      }
    }
    if (first.size() < kSampleWindow) first.push_back(sample);
    last.push_front(std::move(sample));
    if (last.size() > kSampleWindow) last.pop_back();
    return true;
  });
  run.early = chosen(first);
  run.late = chosen(last);
  return found;
}

void find_range(RunData& run) {
  bool any = false;
  for (const auto& [name, points] : run.metrics) {
    if (points.empty()) continue;
    const auto low = static_cast<int64_t>(points.front().x);
    const auto high = static_cast<int64_t>(points.back().x);
    run.first_step = any ? std::min(run.first_step, low) : low;
    run.last_step = any ? std::max(run.last_step, high) : high;
    any = true;
  }
}

}  // namespace

RunData read_run(const fs::path& folder) {
  TEMPER_CHECK(fs::is_directory(folder), "[report] there is no run folder ", folder.string());
  RunData run;
  const fs::path clean = fs::weakly_canonical(folder);
  run.name = clean.filename().empty() ? clean.string() : clean.filename().string();
  const bool config = read_config(run, folder / "config.json");
  const bool metrics = read_metrics(run, folder / "metrics.jsonl");
  const bool completions = read_completions(run, folder / "completions.jsonl");
  const bool evals = read_evals(run, folder / "eval.jsonl");
  const bool alarms = read_alarms(run, folder / "alarms.jsonl");
  TEMPER_CHECK(config || metrics || completions || evals || alarms, "[report] ", folder.string(),
               " holds no run: there is no config.json, metrics.jsonl, completions.jsonl, "
               "eval.jsonl or alarms.jsonl");
  if (!metrics) run.problems.emplace_back("There is no metrics.jsonl, so there are no curves.");
  if (!config) run.problems.emplace_back("There is no config.json.");
  find_range(run);
  return run;
}

std::string shortened(const std::string& text, size_t limit) {
  if (text.size() <= limit) return text;
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + concat(" \xE2\x80\xA6 (", text.size() - end, " bytes more)");
}

}  // namespace temper
