#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>

#include "error_of.h"
#include "temper/core/error.h"

namespace temper {

/// A file of the running test's own, deleted afterwards.
class ScratchFile {
 public:
  ScratchFile(const std::string& name, std::string_view content)
      : path_(std::filesystem::path(testing::TempDir()) /
              (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + "_" +
               name)) {
    std::ofstream(path_, std::ios::binary) << content;
  }
  ~ScratchFile() { std::filesystem::remove(path_); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// A file of the data sets that lie beside the project (or under TEMPER_SHARED_DATA).
inline std::filesystem::path shared_data(const std::string& name) {
  const char* folder = std::getenv("TEMPER_SHARED_DATA");
  return folder != nullptr ? std::filesystem::path(folder) / name
                           : std::filesystem::path(TEMPER_SOURCE_DIR) / "../shared/data" / name;
}

}  // namespace temper
