#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/hash.h"
#include "temper/core/log.h"
#include "temper/trainer/run_folder.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kManifest = "MANIFEST.json";
constexpr int64_t kManifestFormat = 1;
constexpr size_t kMaxManifestBytes = size_t{16} << 20;
constexpr size_t kMaxFiles = 100'000;
constexpr int kMaxDepth = 8;

/// Read in pieces and not mapped: a mapped optimizer state would count as memory of this process
/// while it is hashed, which at 8 bytes a weight is the peak of a whole run.
uint64_t hash_file(const fs::path& path) {
  constexpr size_t kPiece = size_t{1} << 20;
  std::ifstream file(path, std::ios::binary);
  TEMPER_CHECK(file.good(), "cannot open ", path.string());
  std::vector<char> piece(kPiece);
  ContentHash hash;
  do {
    file.read(piece.data(), static_cast<std::streamsize>(kPiece));
    hash.add({piece.data(), static_cast<size_t>(file.gcount())});
  } while (file.good());
  TEMPER_CHECK(file.eof(), "cannot read ", path.string());
  return hash.value();
}

std::string hex(uint64_t value) {
  std::array<char, 17> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

/// Flushes every file and folder below `folder` and lists the files, sorted by name.
Json seal_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::vector<fs::path> folders;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const fs::file_status status = entry.symlink_status();
    if (fs::is_directory(status)) {
      folders.push_back(entry.path());
      continue;
    }
    TEMPER_CHECK(fs::is_regular_file(status), "[checkpoint] ", entry.path().string(),
                 " is neither a file nor a folder; a checkpoint must not depend on a link");
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  Json list = Json::array();
  for (const fs::path& file : files) {
    fsync_path(file);
    list.push_back({{"name", file.lexically_relative(folder).generic_string()},
                    {"size", fs::file_size(file)},
                    {"hash", hex(hash_file(file))}});
  }
  for (const fs::path& path : folders) fsync_path(path);
  fsync_path(folder);
  return list;
}

/// A manifest's relative name inside its folder. @throws Error if it would leave it.
fs::path listed_path(const fs::path& folder, const std::string& name) {
  fs::path path = folder;
  size_t begin = 0;
  for (int depth = 0;; ++depth) {
    TEMPER_CHECK(depth < kMaxDepth, "the name \"", name, "\" is nested too deeply");
    const size_t end = name.find('/', begin);
    path = plain_child(path, name.substr(begin, end == std::string::npos ? end : end - begin));
    if (end == std::string::npos) return path;
    begin = end + 1;
  }
}

void check_file(const fs::path& folder, const Json& entry, VerifyLevel level) {
  const auto name = entry.at("name").get<std::string>();
  const fs::path path = listed_path(folder, name);
  TEMPER_CHECK(fs::is_regular_file(fs::symlink_status(path)), name, " is missing");
  const auto size = entry.at("size").get<uint64_t>();
  TEMPER_CHECK(fs::file_size(path) == size, name, " has ", fs::file_size(path),
               " bytes, the manifest says ", size);
  if (level == VerifyLevel::kHashes) {
    TEMPER_CHECK(hex(hash_file(path)) == entry.at("hash").get<std::string>(), name,
                 " does not have the content that the manifest says");
  }
}

}  // namespace

CheckpointWriter::CheckpointWriter(fs::path checkpoints, int64_t step)
    : checkpoints_(std::move(checkpoints)),
      partial_(checkpoints_ / concat(".step-", step, ".partial")),
      step_(step) {
  std::error_code error;
  fs::remove_all(partial_, error);
  if (!error) fs::create_directories(partial_, error);
  TEMPER_CHECK(!error, "[checkpoint] cannot make ", partial_.string(), ": ", error.message(),
               "; older checkpoints are intact");
}

CheckpointWriter::CheckpointWriter(CheckpointWriter&& other) noexcept
    : checkpoints_(std::move(other.checkpoints_)),
      partial_(std::move(other.partial_)),
      step_(other.step_),
      done_(std::exchange(other.done_, true)) {}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;
  if (!done_) fs::remove_all(partial_, ignored);
}

fs::path CheckpointWriter::commit() {
  TEMPER_CHECK(!done_, "[checkpoint] step ", step_, " was committed already");
  const fs::path place = checkpoints_ / concat("step-", step_);
  const fs::path replaced = checkpoints_ / concat(".step-", step_, ".replaced");
  try {
    const Json manifest = {
        {"format", kManifestFormat}, {"step", step_}, {"files", seal_files(partial_)}};
    write_file_atomically(partial_ / kManifest, manifest.dump(1) + "\n");
    if (fs::exists(place)) {
      fs::remove_all(replaced);
      fs::rename(place, replaced);
    }
    fs::rename(partial_, place);
    done_ = true;
    fsync_path(checkpoints_);
    fs::remove_all(replaced);
  } catch (const std::exception& e) {
    std::error_code ignored;
    if (!fs::exists(place, ignored) && fs::exists(replaced, ignored)) {
      fs::rename(replaced, place, ignored);
    }
    fail("[checkpoint] cannot finish the checkpoint of step ", step_, ": ", e.what(),
         ". Older checkpoints are intact; when the cause is gone, go on by --resume");
  }
  return place;
}

std::optional<std::string> checkpoint_damage(const fs::path& folder, VerifyLevel level) {
  try {
    if (!fs::exists(folder / kManifest)) return "it has no MANIFEST.json";
    const Json manifest = Json::parse(read_text_file(folder / kManifest, kMaxManifestBytes));
    const auto format = manifest.at("format").get<int64_t>();
    if (format != kManifestFormat) {
      return concat("its manifest has format ", format, ", this program reads ", kManifestFormat);
    }
    const Json& files = manifest.at("files");
    TEMPER_CHECK(files.is_array() && files.size() <= kMaxFiles, "its list of files is malformed");
    for (const Json& entry : files) check_file(folder, entry, level);
  } catch (const std::exception& e) {
    return e.what();
  }
  return std::nullopt;
}

std::optional<Checkpoint> newest_complete_checkpoint(const fs::path& run_folder,
                                                     VerifyLevel level) {
  auto found = list_checkpoints(run_folder);
  for (auto it = found.rbegin(); it != found.rend(); ++it) {
    const auto damage = checkpoint_damage(it->folder, level);
    if (!damage) return *it;
    log_warn("skipping the checkpoint ", it->folder.string(), ": ", *damage);
  }
  return std::nullopt;
}

}  // namespace temper
