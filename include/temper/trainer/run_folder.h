#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace temper {

/// How far a checkpoint's manifest is checked.
enum class VerifyLevel {
  kSizes,   ///< Every listed file is there with its size.
  kHashes,  ///< And has its content (reads every byte).
};

/// A complete checkpoint on disk.
struct Checkpoint {
  int64_t step = 0;
  std::filesystem::path folder;
};

/// Writes one checkpoint aside and makes it appear at once. The order is: files into
/// `.step-N.partial/`, fsync of each file and folder, MANIFEST.json with names, sizes and hashes
/// last, rename to `step-N`, fsync of the parent. A process killed at any moment leaves either the
/// whole checkpoint or a partial folder that is ignored and removed later.
/// Without `commit` the partial folder is removed by the destructor.
class CheckpointWriter {
 public:
  CheckpointWriter(std::filesystem::path checkpoints, int64_t step);
  ~CheckpointWriter();
  CheckpointWriter(CheckpointWriter&& other) noexcept;
  CheckpointWriter& operator=(CheckpointWriter&&) = delete;

  /// Where the files go; sub-folders are allowed.
  [[nodiscard]] const std::filesystem::path& folder() const { return partial_; }

  /// Makes the checkpoint permanent, replacing one of the same step.
  /// @return its final folder.
  /// @throws Error, for one if the disk is full; older checkpoints stay as they were.
  std::filesystem::path commit();

 private:
  std::filesystem::path checkpoints_;
  std::filesystem::path partial_;
  int64_t step_ = 0;
  bool done_ = false;
};

/// The folder of one run: config.json, metrics.jsonl, completions.jsonl, eval.jsonl, alarms.jsonl,
/// events.out.tfevents..., report.html and checkpoints/step-N/. Used by one process at a time.
class RunFolder {
 public:
  /// @throws Error if a new run cannot have this folder: it is a file or holds a run already.
  static void check_unused(const std::filesystem::path& path);

  /// Makes the folder of a new run.
  /// @throws Error if it holds a run already (a config.json or a checkpoint), naming both ways out.
  [[nodiscard]] static RunFolder create(const std::filesystem::path& path);

  /// Opens the folder of a run to go on with it, or makes it if there is none; removes what an
  /// interrupted checkpoint left.
  [[nodiscard]] static RunFolder resume(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }

  /// Writes config.json atomically.
  void write_config(std::string_view json) const;

  /// Begins the checkpoint of a step, at least 0.
  /// @param expected_bytes  Size of what will be written, 0 if not known.
  /// @throws Error if the disk has less room than that, before anything is written.
  [[nodiscard]] CheckpointWriter begin(int64_t step, uint64_t expected_bytes = 0) const;

  /// Removes all complete checkpoints but the newest `count` (at least 1) and `best`, if given.
  void keep_last(int64_t count, std::optional<int64_t> best = std::nullopt) const;

 private:
  explicit RunFolder(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

/// Whether the folder holds a run.
[[nodiscard]] bool holds_a_run(const std::filesystem::path& path);

/// What is wrong with a checkpoint folder, or nothing.
[[nodiscard]] std::optional<std::string> checkpoint_damage(const std::filesystem::path& folder,
                                                           VerifyLevel level);

/// Folders named `step-N` of a run folder by rising step, broken ones included.
[[nodiscard]] std::vector<Checkpoint> list_checkpoints(const std::filesystem::path& run_folder);

/// The newest checkpoint that passes; broken ones are skipped with a warning that says why.
[[nodiscard]] std::optional<Checkpoint> newest_complete_checkpoint(
    const std::filesystem::path& run_folder, VerifyLevel level = VerifyLevel::kHashes);

}  // namespace temper
