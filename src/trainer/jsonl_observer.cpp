#include "temper/trainer/jsonl_observer.h"

#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "append_file.h"
#include "temper/core/error.h"
#include "temper/core/file.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

std::string to_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

/// `json[name] = value` for every metric, except names that the line already has.
void add_metrics(Json& json, const Metrics& metrics) {
  for (const auto& [name, value] : metrics) {
    if (!json.contains(name)) json[name] = number(value);
  }
}

std::string completion_line(const SampleCompletion& sample) {
  Json json;
  json["step"] = sample.step;
  json["prompt"] = sample.prompt;
  json["completion"] = sample.completion;
  json["rewards"] = Json::object();
  for (const auto& [name, value] : sample.rewards) json["rewards"][name] = number(value);
  json["advantage"] = number(sample.advantage);
  json["tokens"] = sample.tokens;
  json["truncated"] = sample.truncated;
  return to_line(json);
}

bool has_suffix(std::string_view text, std::string_view suffix) { return text.ends_with(suffix); }

bool line_is_kept(const std::string& line, int64_t last_step) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return false;
  const auto step = json.find("step");
  return step != json.end() && step->is_number_integer() && step->get<int64_t>() <= last_step;
}

}  // namespace

bool is_wall_clock(std::string_view name) {
  return name == "time" || name == "seconds" || name.starts_with("time/") ||
         has_suffix(name, "_time") || has_suffix(name, "_seconds") ||
         has_suffix(name, "_per_second") || has_suffix(name, "_resident_bytes");
}

std::string metrics_line(const StepEvent& event, double unix_seconds) {
  Json json;
  json["step"] = event.step;
  json["time"] = number(unix_seconds);
  json["seconds"] = number(event.seconds);
  json["epoch"] = number(event.epoch);
  add_metrics(json, event.metrics);
  return to_line(json);
}

int64_t keep_lines_up_to(const fs::path& path, int64_t last_step) {
  if (!fs::exists(path)) return 0;
  const fs::path temporary = path.string() + ".partial";
  int64_t dropped = 0;
  {
    std::ifstream in(path, std::ios::binary);
    TEMPER_CHECK(in, "[run folder] cannot read ", path.string());
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    std::string line;
    while (std::getline(in, line)) {
      // A last line without its line feed was cut short even if it parses: "step":1 of "step":12.
      const bool whole = !in.eof();
      if (whole && line_is_kept(line, last_step)) {
        out << line << '\n';
      } else {
        ++dropped;
      }
    }
    out.flush();
    TEMPER_CHECK(out && in.eof(), "[run folder] cannot rewrite ", path.string(),
                 ": is the disk full?");
  }
  if (dropped == 0) {
    fs::remove(temporary);
    return 0;
  }
  fsync_path(temporary);
  fs::rename(temporary, path);
  fsync_path(path.has_parent_path() ? path.parent_path() : fs::path("."));
  return dropped;
}

struct JsonlObserver::Files {
  AppendFile metrics;
  AppendFile completions;
  AppendFile eval;
  AppendFile alarms;

  void sync() {
    for (AppendFile* file : {&metrics, &completions, &eval, &alarms}) file->sync();
  }
};

JsonlObserver::JsonlObserver(Clock clock)
    : clock_(std::move(clock)), files_(std::make_unique<Files>()) {
  if (!clock_) {
    clock_ = [] {
      const auto now = std::chrono::system_clock::now().time_since_epoch();
      return std::chrono::duration<double>(now).count();
    };
  }
}

JsonlObserver::~JsonlObserver() = default;

void JsonlObserver::on_start(const RunInfo& info) {
  const auto open = [&](AppendFile& file, const char* name) {
    // A run that starts over must not keep the evaluation of step 0 of an earlier attempt.
    keep_lines_up_to(info.folder / name, info.start_step > 0 ? info.start_step : -1);
    file.open(info.folder / name);
  };
  // The evaluation after the last step comes after its checkpoint and is made again.
  if (info.start_step >= info.total_steps) {
    keep_lines_up_to(info.folder / "eval.jsonl", info.total_steps - 1);
  }
  open(files_->metrics, "metrics.jsonl");
  open(files_->completions, "completions.jsonl");
  open(files_->eval, "eval.jsonl");
  open(files_->alarms, "alarms.jsonl");
}

void JsonlObserver::on_step(const StepEvent& event) {
  files_->metrics.append(metrics_line(event, clock_()));
  std::string lines;
  for (const SampleCompletion& sample : event.samples) lines += completion_line(sample);
  files_->completions.append(lines);
}

void JsonlObserver::on_eval(const EvalEvent& event) {
  Json json;
  json["step"] = event.step;
  json["time"] = number(clock_());
  json["data"] = event.data;
  json["correct"] = event.correct;
  json["count"] = event.count;
  json["seconds"] = number(event.seconds);
  add_metrics(json, event.metrics);
  files_->eval.append(to_line(json));
}

void JsonlObserver::on_checkpoint(int64_t /*step*/, const fs::path& /*folder*/) { files_->sync(); }

void JsonlObserver::on_alarm(const Alarm& alarm) {
  Json json;
  json["step"] = alarm.step;
  json["time"] = number(clock_());
  json["kind"] = alarm.kind;
  json["sentence"] = alarm.sentence;
  json["stop"] = alarm.stop;
  files_->alarms.append(to_line(json));
}

void JsonlObserver::on_end(const EndEvent& /*event*/) { files_->sync(); }

}  // namespace temper
