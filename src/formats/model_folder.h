#pragma once

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "temper/core/error.h"
#include "temper/core/file.h"

namespace temper::detail {

/// A model's folder. Hands out only files that really lie inside it, or inside the tree of the hub
/// cache's repository that it is a snapshot of, whose files are links to a folder beside it.
class ModelFolder {
 public:
  explicit ModelFolder(const std::filesystem::path& folder) : folder_(folder) {
    std::error_code error;
    root_ = std::filesystem::canonical(folder, error);
    TEMPER_CHECK(!error && std::filesystem::is_directory(root_), "[hf_folder] ", folder.string(),
                 " is no folder");
    const std::filesystem::path snapshots = root_.parent_path();
    if (snapshots.filename() == "snapshots" &&
        snapshots.parent_path().filename().string().starts_with("models--")) {
      root_ = snapshots.parent_path();
    }
  }

  [[nodiscard]] const std::filesystem::path& path() const { return folder_; }

  /// @throws Error for a name with a separator and for a link that leads out of the tree.
  [[nodiscard]] std::optional<std::filesystem::path> find(std::string_view name) const {
    const std::filesystem::path child = plain_child(folder_, name);
    std::error_code error;
    if (!std::filesystem::exists(child, error)) return std::nullopt;
    const std::filesystem::path real = std::filesystem::canonical(child, error);
    const auto [end, unused] = std::mismatch(root_.begin(), root_.end(), real.begin(), real.end());
    TEMPER_CHECK(!error && end == root_.end(), "[hf_folder] ", child.string(),
                 " is a link out of the model's folder");
    return real;
  }

  /// The file's text, or an empty string when it is not there.
  [[nodiscard]] std::string text(std::string_view name, size_t max_bytes) const {
    const auto file = find(name);
    return file ? read_text_file(*file, max_bytes) : std::string();
  }

  [[nodiscard]] std::string source(std::string_view name) const {
    return (folder_ / name).string();
  }

 private:
  std::filesystem::path folder_;
  std::filesystem::path root_;
};

}  // namespace temper::detail
