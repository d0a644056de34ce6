#include "temper/core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "temper/core/error.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

/// Closes a file descriptor at the end of its scope.
class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags, int mode = 0)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
    TEMPER_CHECK(fd_ >= 0, "cannot open ", path.string(), ": ", std::strerror(errno));
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { ::close(fd_); }
  int get() const { return fd_; }

 private:
  int fd_;
};

void write_all(int fd, std::string_view content, const fs::path& path) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    TEMPER_CHECK(n > 0, "cannot write ", path.string(), ": ", std::strerror(errno));
    content.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  const Descriptor file(path, O_RDONLY);
  struct stat info {};
  TEMPER_CHECK(::fstat(file.get(), &info) == 0, "cannot stat ", path.string(), ": ",
               std::strerror(errno));
  TEMPER_CHECK(S_ISREG(info.st_mode), path.string(), " is not a regular file");
  const size_t size = static_cast<size_t>(info.st_size);
  std::span<const std::byte> bytes;
  if (size > 0) {
    void* p = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    TEMPER_CHECK(p != MAP_FAILED, "cannot map ", path.string(), ": ", std::strerror(errno));
    ::madvise(p, size, MADV_WILLNEED);
    bytes = {static_cast<const std::byte*>(p), size};
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, bytes));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

std::string read_text_file(const fs::path& path, size_t max_bytes) {
  const auto file = MappedFile::open(path);
  TEMPER_CHECK(file->bytes().size() <= max_bytes, path.string(), " has ", file->bytes().size(),
               " bytes, more than the limit of ", max_bytes);
  return {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()};
}

void fsync_path(const fs::path& path) {
  const Descriptor file(path, O_RDONLY);
  TEMPER_CHECK(::fsync(file.get()) == 0, "cannot fsync ", path.string(), ": ",
               std::strerror(errno));
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const fs::path temporary = folder / (path.filename().string() + ".partial");
  try {
    const Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    write_all(file.get(), content, temporary);
    TEMPER_CHECK(::fsync(file.get()) == 0, "cannot fsync ", temporary.string(), ": ",
                 std::strerror(errno));
  } catch (const Error&) {
    ::unlink(temporary.c_str());
    throw;
  }
  TEMPER_CHECK(::rename(temporary.c_str(), path.c_str()) == 0, "cannot rename ", temporary.string(),
               " to ", path.string(), ": ", std::strerror(errno));
  fsync_path(folder);
}

fs::path plain_child(const fs::path& folder, std::string_view name) {
  const bool plain =
      !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
      name.find('\\') == std::string_view::npos && name.find('\0') == std::string_view::npos;
  TEMPER_CHECK(plain, "expected a plain file name inside ", folder.string(), ", got \"", name,
               "\": a name must not leave its folder");
  return folder / fs::path(std::string(name));
}

}  // namespace temper
