#include "temper/trainer/run_folder.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include "temper/core/error.h"
#include "temper/core/file.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStepPrefix = "step-";
constexpr std::string_view kPartialSuffix = ".partial";
constexpr std::string_view kReplacedSuffix = ".replaced";

/// The N of "step-N", digits only and no leading zero.
std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  name.remove_prefix(kStepPrefix.size());
  if (name.empty() || (name.size() > 1 && name[0] == '0')) return std::nullopt;
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc{} || end != name.data() + name.size() || step < 0) return std::nullopt;
  return step;
}

/// Removes a checkpoint such that a kill in between leaves no half `step-N`.
void remove_checkpoint(const fs::path& folder) {
  const fs::path aside =
      folder.parent_path() / concat(".", folder.filename().string(), ".removed", kPartialSuffix);
  fs::remove_all(aside);
  fs::rename(folder, aside);
  fs::remove_all(aside);
}

/// Removes what interrupted saves left. A checkpoint that was being replaced when the process died
/// gets its place back.
void clean(const fs::path& checkpoints) {
  std::vector<fs::path> left_over;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(".step-")) continue;
    if (name.ends_with(kPartialSuffix) || name.ends_with(kReplacedSuffix)) {
      left_over.push_back(entry.path());
    }
  }
  for (const fs::path& path : left_over) {
    const std::string name = path.filename().string();
    if (name.ends_with(kReplacedSuffix)) {
      const fs::path place = checkpoints / name.substr(1, name.size() - 1 - kReplacedSuffix.size());
      if (!fs::exists(place)) {
        fs::rename(path, place);
        continue;
      }
    }
    fs::remove_all(path);
  }
}

/// Runs `body`, turning the standard library's file errors into Temper's.
template <class Body>
auto with_context(const char* op, const fs::path& path, Body&& body) {
  try {
    return body();
  } catch (const fs::filesystem_error& e) {
    fail("[", op, "] ", path.string(), ": ", e.code().message());
  }
}

}  // namespace

bool holds_a_run(const fs::path& path) {
  return fs::exists(path / "config.json") || fs::exists(path / "metrics.jsonl") ||
         !list_checkpoints(path).empty();
}

void RunFolder::check_unused(const fs::path& path) {
  with_context("run folder", path, [&] {
    TEMPER_CHECK(!fs::exists(path) || fs::is_directory(path), "[run folder] ", path.string(),
                 " is a file; choose a folder with --output");
    TEMPER_CHECK(!holds_a_run(path), "[run folder] ", path.string(),
                 " holds a run already: go on with it by --resume, or choose another --output");
  });
}

RunFolder RunFolder::create(const fs::path& path) {
  check_unused(path);
  return with_context("run folder", path, [&] {
    fs::create_directories(path / "checkpoints");
    return RunFolder(path);
  });
}

RunFolder RunFolder::resume(const fs::path& path) {
  return with_context("run folder", path, [&] {
    fs::create_directories(path / "checkpoints");
    clean(path / "checkpoints");
    return RunFolder(path);
  });
}

void RunFolder::write_config(std::string_view json) const {
  write_file_atomically(path_ / "config.json", json);
}

CheckpointWriter RunFolder::begin(int64_t step, uint64_t expected_bytes) const {
  TEMPER_CHECK(step >= 0, "[checkpoint] the step must be at least 0, got ", step);
  std::error_code error;
  const fs::space_info space = fs::space(checkpoints(), error);
  TEMPER_CHECK(error || space.available >= expected_bytes, "[checkpoint] step ", step, " needs ",
               expected_bytes, " bytes but ", path_.string(), " has room for ", space.available,
               ": free some space, keep fewer checkpoints, or choose another --output; older "
               "checkpoints are intact");
  return {checkpoints(), step};
}

void RunFolder::keep_last(int64_t count, std::optional<int64_t> best) const {
  TEMPER_CHECK(count >= 1, "[checkpoint] at least 1 checkpoint must be kept, got ", count);
  with_context("checkpoint", path_, [&] {
    int64_t kept = 0;
    const auto all = list_checkpoints(path_);
    for (auto it = all.rbegin(); it != all.rend(); ++it) {
      const bool complete = !checkpoint_damage(it->folder, VerifyLevel::kSizes);
      // A broken one newer than every complete one stays: a person may want to look at it.
      if (kept == 0 && !complete) continue;
      if (complete && kept < count) {
        ++kept;
      } else if (it->step != best) {
        remove_checkpoint(it->folder);
      }
    }
  });
}

std::vector<Checkpoint> list_checkpoints(const fs::path& run_folder) {
  std::vector<Checkpoint> found;
  const fs::path folder = run_folder / "checkpoints";
  if (!fs::is_directory(folder)) return found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto step = step_of(entry.path().filename().string());
    if (step && entry.is_directory()) found.push_back({*step, entry.path()});
  }
  std::sort(found.begin(), found.end(),
            [](const Checkpoint& a, const Checkpoint& b) { return a.step < b.step; });
  return found;
}

}  // namespace temper
