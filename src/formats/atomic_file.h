#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace temper::detail {

/// A file that is written piece by piece beside its target and takes the target's place, flushed,
/// at `commit`. Without `commit` the piece is removed and the target stays as it was.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_ = -1;
};

}  // namespace temper::detail
