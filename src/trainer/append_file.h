#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace temper {

/// A file that only grows. Each `append` is one write to the system, so a killed process leaves at
/// most one unfinished line at the end.
class AppendFile {
 public:
  AppendFile() = default;
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  /// @throws Error naming the path.
  void open(const std::filesystem::path& path);
  [[nodiscard]] bool is_open() const { return fd_ >= 0; }
  /// @throws Error with the reason, such as a full disk.
  void append(std::string_view bytes);
  /// Waits until the disk has everything. @throws Error.
  void sync();
  void close();

 private:
  int fd_ = -1;
  std::filesystem::path path_;
};

}  // namespace temper
