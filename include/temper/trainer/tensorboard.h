#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "temper/trainer/observer.h"

namespace temper {

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) of `bytes`; "123456789" gives 0xE3069283.
[[nodiscard]] uint32_t crc32c(std::string_view bytes);

/// Writes one TensorBoard event file (records of length, masked CRC-32C, protobuf). Append-only; an
/// event is with the system when the call returns.
class TensorBoardWriter {
 public:
  /// Creates `folder/events.out.tfevents.<seconds>.<host>.<pid>.<n>`, never an existing file.
  /// @throws Error if the file cannot be made.
  TensorBoardWriter(const std::filesystem::path& folder, double unix_seconds);
  ~TensorBoardWriter();
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  TensorBoardWriter& operator=(const TensorBoardWriter&) = delete;

  /// All metrics of one step as scalars, in one event. Values are stored as float32.
  void scalars(int64_t step, double unix_seconds, const Metrics& metrics);
  /// One entry of the text tab; Markdown.
  void text(int64_t step, double unix_seconds, std::string_view tag, std::string_view markdown);
  /// Tells TensorBoard to forget what earlier files of the run hold for `step` and later.
  void restart(int64_t step, double unix_seconds);
  void sync();

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  class Impl;
  std::filesystem::path path_;
  std::unique_ptr<Impl> impl_;
};

/// One value read back from an event file.
struct TensorBoardValue {
  double unix_seconds = 0;
  int64_t step = 0;
  std::string tag;
  bool is_text = false;
  float scalar = 0;  ///< When not text.
  std::string text;
};

/// All scalars and texts of an event file, in order.
/// @param complete  Set to false if the file ends in an unfinished record (a killed run); what came
///     before is still returned. May be null.
/// @throws Error for a wrong CRC, a wrong version or a malformed message.
[[nodiscard]] std::vector<TensorBoardValue> read_tensorboard(const std::filesystem::path& path,
                                                             bool* complete = nullptr);

/// Writes every metric of every step, evaluations (under "eval_"), alarms and up to
/// `samples_per_step` completions as text. A resumed run gets a new file.
class TensorBoardObserver : public Observer {
 public:
  explicit TensorBoardObserver(int64_t samples_per_step = 2);
  ~TensorBoardObserver() override;
  void on_start(const RunInfo& info) override;
  void on_step(const StepEvent& event) override;
  void on_eval(const EvalEvent& event) override;
  void on_checkpoint(int64_t step, const std::filesystem::path& folder) override;
  void on_alarm(const Alarm& alarm) override;
  void on_end(const EndEvent& event) override;

 private:
  int64_t samples_per_step_;
  std::unique_ptr<TensorBoardWriter> writer_;
};

}  // namespace temper
