#include "append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "temper/core/error.h"

namespace temper {

AppendFile::~AppendFile() { close(); }

void AppendFile::open(const std::filesystem::path& path) {
  close();
  path_ = path;
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  TEMPER_CHECK(fd_ >= 0, "[run folder] cannot open ", path.string(), ": ", std::strerror(errno));
}

void AppendFile::append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    TEMPER_CHECK(n > 0, "[run folder] cannot write ", path_.string(), ": ", std::strerror(errno));
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

void AppendFile::sync() {
  if (fd_ < 0) return;
  TEMPER_CHECK(::fsync(fd_) == 0, "[run folder] cannot fsync ", path_.string(), ": ",
               std::strerror(errno));
}

void AppendFile::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

}  // namespace temper
