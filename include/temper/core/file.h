#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace temper {

/// A file mapped read-only (private). The mapping lives as long as the last `shared_ptr` to it.
class MappedFile {
 public:
  /// @throws Error naming the path if it cannot be opened, is no regular file, or cannot be mapped.
  [[nodiscard]] static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile(std::filesystem::path path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

/// The whole file. @throws Error if it is missing, unreadable or longer than `max_bytes`.
[[nodiscard]] std::string read_text_file(const std::filesystem::path& path,
                                         size_t max_bytes = size_t{256} << 20);

/// Writes beside the target, fsyncs, renames over it and fsyncs the folder: after a crash the old
/// file or the new one is there, never half of one. @throws Error with the reason (a full disk
/// ...).
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// Flushes a file's or a folder's content to the disk.
void fsync_path(const std::filesystem::path& path);

/// `folder / name`, for a name that came from a file.
/// @throws Error unless `name` is a plain file name (no separator, not "..", not absolute, no NUL).
[[nodiscard]] std::filesystem::path plain_child(const std::filesystem::path& folder,
                                                std::string_view name);

}  // namespace temper
