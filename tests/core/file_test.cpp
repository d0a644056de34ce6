#include "temper/core/file.h"

#include <gtest/gtest.h>

#include "temper/core/dtype.h"
#include "temper/core/error.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

TEST(File, AtomicWriteReplacesAndLeavesNothingBehind) {
  const fs::path folder = fs::path(testing::TempDir()) / "temper_file_test";
  fs::remove_all(folder);
  fs::create_directories(folder);
  write_file_atomically(folder / "a.txt", "one");
  write_file_atomically(folder / "a.txt", "two");
  EXPECT_EQ(read_text_file(folder / "a.txt"), "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator{}), 1);
  EXPECT_THROW(write_file_atomically(folder / "missing" / "a.txt", "x"), Error);
  EXPECT_THROW((void)read_text_file(folder / "a.txt", 2), Error);
  EXPECT_THROW((void)MappedFile::open(folder), Error);
}

TEST(File, PlainChildRefusesEveryEscape) {
  EXPECT_EQ(plain_child("d", "model.safetensors"), fs::path("d/model.safetensors"));
  for (const char* bad : {"", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b"}) {
    EXPECT_THROW((void)plain_child("d", bad), Error) << bad;
  }
  EXPECT_THROW((void)plain_child("d", std::string_view("a\0b", 3)), Error);
}

// Hand values: 1.0 = 0x3f80; 1 + 2^-8 ties to even (0x3f80); 1 + 3*2^-8 ties up (0x3f82).
TEST(DType, Bf16RoundsToNearestEven) {
  EXPECT_EQ(float_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.0f + 0x1.8p-7f), 0x3f82);
  EXPECT_EQ(bf16_to_float(0x3f82), 1.015625f);
  EXPECT_EQ(half_to_float(0x3c00), 1.0f);
  EXPECT_EQ(half_to_float(0x0001), 0x1p-24f);
  EXPECT_EQ(half_to_float(0xfbff), -65504.0f);
}

}  // namespace
}  // namespace temper
