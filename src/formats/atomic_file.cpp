#include "atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "temper/core/error.h"
#include "temper/core/file.h"

namespace temper::detail {

AtomicFile::AtomicFile(std::filesystem::path path)
    : path_(std::move(path)), temporary_(path_.string() + ".partial") {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  TEMPER_CHECK(fd_ >= 0, "cannot open ", temporary_.string(), ": ", std::strerror(errno));
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    TEMPER_CHECK(n > 0, "cannot write ", temporary_.string(), ": ", std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void AtomicFile::commit() {
  TEMPER_CHECK(::fsync(fd_) == 0, "cannot fsync ", temporary_.string(), ": ", std::strerror(errno));
  TEMPER_CHECK(::rename(temporary_.c_str(), path_.c_str()) == 0, "cannot rename ",
               temporary_.string(), " to ", path_.string(), ": ", std::strerror(errno));
  ::close(fd_);
  fd_ = -1;
  fsync_path(path_.has_parent_path() ? path_.parent_path() : std::filesystem::path("."));
}

}  // namespace temper::detail
