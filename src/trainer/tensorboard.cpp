#include "temper/trainer/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "append_file.h"
#include "protobuf.h"
#include "temper/core/error.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? 0x82F63B78u : 0u);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

double now_seconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

/// One file of a process gets one number, so that two writers of the same second do not meet.
fs::path event_file_name(double unix_seconds, int number) {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0 || host[0] == '\0') {
    std::strcpy(host.data(), "host");
  }
  for (char& c : host) {
    if (c == '/') c = '_';
  }
  std::array<char, 400> name{};
  std::snprintf(name.data(), name.size(), "events.out.tfevents.%010" PRId64 ".%s.%d.%d",
                static_cast<int64_t>(unix_seconds), host.data(), static_cast<int>(::getpid()),
                number);
  return name.data();
}

/// A text as it stands, inside a Markdown code block that it cannot leave.
std::string fenced(const std::string& text) {
  size_t longest = 0;
  size_t run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(std::max<size_t>(3, longest + 1), '`');
  return fence + "\n" + text + "\n" + fence + "\n";
}

std::string sample_markdown(const SampleCompletion& sample) {
  std::string out;
  for (const auto& [name, value] : sample.rewards) out += concat("**", name, "** ", value, "  ");
  out += concat("**advantage** ", sample.advantage, "  **tokens** ", sample.tokens,
                sample.truncated ? " (cut off)" : "", "\n\nPrompt\n\n");
  return out + fenced(sample.prompt) + "\nCompletion\n\n" + fenced(sample.completion);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) {
    crc = kCrcTable[(crc ^ static_cast<uint8_t>(c)) & 0xFFu] ^ (crc >> 8);
  }
  return ~crc;
}

class TensorBoardWriter::Impl {
 public:
  explicit Impl(const fs::path& path) { file_.open(path); }

  void record(const ProtoWriter& event) {
    const std::string& data = event.bytes();
    std::string out = little_endian_bytes(uint64_t{data.size()});
    out += little_endian_bytes(masked_crc(crc32c(out)));
    out += data;
    out += little_endian_bytes(masked_crc(crc32c(data)));
    file_.append(out);
  }
  void sync() { file_.sync(); }

 private:
  AppendFile file_;
};

TensorBoardWriter::TensorBoardWriter(const fs::path& folder, double unix_seconds) {
  int number = 0;
  do {
    path_ = folder / event_file_name(unix_seconds, number++);
  } while (fs::exists(path_));
  impl_ = std::make_unique<Impl>(path_);
  ProtoWriter version;
  version.fixed64(event_field::kWallTime, unix_seconds);
  version.bytes(event_field::kFileVersion, kEventFileVersion);
  impl_->record(version);
}

TensorBoardWriter::~TensorBoardWriter() = default;

void TensorBoardWriter::scalars(int64_t step, double unix_seconds, const Metrics& metrics) {
  ProtoWriter summary;
  for (const auto& [name, value] : metrics) {
    ProtoWriter entry;
    entry.bytes(value_field::kTag, name);
    entry.fixed32(value_field::kSimpleValue, static_cast<float>(value));
    summary.message(summary_field::kValue, entry);
  }
  ProtoWriter event;
  event.fixed64(event_field::kWallTime, unix_seconds);
  event.varint(event_field::kStep, static_cast<uint64_t>(step));
  event.message(event_field::kSummary, summary);
  impl_->record(event);
}

void TensorBoardWriter::text(int64_t step, double unix_seconds, std::string_view tag,
                             std::string_view markdown) {
  ProtoWriter plugin;
  plugin.bytes(plugin_field::kName, kTextPlugin);
  ProtoWriter metadata;
  metadata.message(metadata_field::kPlugin, plugin);
  ProtoWriter dim;
  dim.varint(dim_field::kSize, 1);
  ProtoWriter shape;
  shape.message(shape_field::kDim, dim);
  ProtoWriter tensor;
  tensor.varint(tensor_field::kDtype, kDtString);
  tensor.message(tensor_field::kShape, shape);
  tensor.bytes(tensor_field::kStringVal, markdown);
  ProtoWriter entry;
  entry.bytes(value_field::kTag, tag);
  entry.message(value_field::kTensor, tensor);
  entry.message(value_field::kMetadata, metadata);
  ProtoWriter summary;
  summary.message(summary_field::kValue, entry);
  ProtoWriter event;
  event.fixed64(event_field::kWallTime, unix_seconds);
  event.varint(event_field::kStep, static_cast<uint64_t>(step));
  event.message(event_field::kSummary, summary);
  impl_->record(event);
}

void TensorBoardWriter::restart(int64_t step, double unix_seconds) {
  ProtoWriter log;
  log.varint(session_field::kStatus, kSessionStart);
  ProtoWriter event;
  event.fixed64(event_field::kWallTime, unix_seconds);
  event.varint(event_field::kStep, static_cast<uint64_t>(step));
  event.message(event_field::kSessionLog, log);
  impl_->record(event);
}

void TensorBoardWriter::sync() { impl_->sync(); }

TensorBoardObserver::TensorBoardObserver(int64_t samples_per_step)
    : samples_per_step_(samples_per_step) {}
TensorBoardObserver::~TensorBoardObserver() = default;

void TensorBoardObserver::on_start(const RunInfo& info) {
  const double now = now_seconds();
  writer_ = std::make_unique<TensorBoardWriter>(info.folder, now);
  if (info.start_step > 0) writer_->restart(info.start_step + 1, now);
  writer_->text(info.start_step, now, "config", fenced(info.config_json));
}

void TensorBoardObserver::on_step(const StepEvent& event) {
  const double now = now_seconds();
  Metrics all = event.metrics;
  all.try_emplace("step_time", event.seconds);
  all.try_emplace("epoch", event.epoch);
  writer_->scalars(event.step, now, all);
  const auto shown = std::min(event.samples.size(), static_cast<size_t>(samples_per_step_));
  for (size_t i = 0; i < shown; ++i) {
    writer_->text(event.step, now, concat("completions/", i), sample_markdown(event.samples[i]));
  }
}

void TensorBoardObserver::on_eval(const EvalEvent& event) {
  Metrics named;
  for (const auto& [name, value] : event.metrics) {
    const bool said = name.starts_with("eval_") || name.starts_with("eval/");
    named[said ? name : "eval_" + name] = value;
  }
  if (event.count > 0) {
    named.try_emplace("eval_accuracy",
                      static_cast<double>(event.correct) / static_cast<double>(event.count));
  }
  writer_->scalars(event.step, now_seconds(), named);
}

void TensorBoardObserver::on_checkpoint(int64_t /*step*/, const fs::path& /*folder*/) {
  writer_->sync();
}

void TensorBoardObserver::on_alarm(const Alarm& alarm) {
  writer_->text(alarm.step, now_seconds(), "alarms/" + alarm.kind, fenced(alarm.sentence));
}

void TensorBoardObserver::on_end(const EndEvent& /*event*/) { writer_->sync(); }

}  // namespace temper
