#include "temper/trainer/tensorboard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temporary_folder.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

// The check value of CRC-32C in its definition; the others are the iSCSI examples (RFC 3720, B.4).
TEST(TensorBoard, Crc32cKnownValues) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
}

// The first record by hand: Event{wall_time: 0.5, file_version: "brain.Event:2"} is 09 + the double
// (9 bytes), 1a 0d + 13 letters (15 bytes): length 24.
TEST(TensorBoard, FirstRecordByHand) {
  const TemporaryFolder temporary;
  const TensorBoardWriter writer(temporary.path(), 0.5);
  const std::string bytes = read_text_file(writer.path());
  ASSERT_EQ(bytes.size(), 8u + 4 + 24 + 4);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x18\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(bytes.substr(12, 24),
            std::string("\x09\0\0\0\0\0\0\xe0\x3f\x1a\x0d", 11) + "brain.Event:2");
  EXPECT_TRUE(writer.path().filename().string().starts_with("events.out.tfevents.0000000000."));
}

TEST(TensorBoard, ReadsBackWhatWasWritten) {
  const TemporaryFolder temporary;
  TensorBoardWriter writer(temporary.path(), 1700000000.0);
  writer.scalars(1, 10.5, {{"reward", 0.1}, {"kl", -2.5}});
  writer.text(2, 11.5, "completions/0", "a | b\n```x```");
  writer.scalars(int64_t{1} << 40, 12.5, {{"nan", std::nan("")}});
  bool complete = false;
  const auto values = read_tensorboard(writer.path(), &complete);
  EXPECT_TRUE(complete);
  ASSERT_EQ(values.size(), 4u);
  EXPECT_EQ(values[0].tag, "kl");
  EXPECT_EQ(values[0].scalar, -2.5f);
  EXPECT_EQ(values[0].step, 1);
  EXPECT_EQ(values[0].unix_seconds, 10.5);
  EXPECT_EQ(values[1].scalar, 0.1f);
  EXPECT_TRUE(values[2].is_text);
  EXPECT_EQ(values[2].tag, "completions/0");
  EXPECT_EQ(values[2].text, "a | b\n```x```");
  EXPECT_EQ(values[3].step, int64_t{1} << 40);
  EXPECT_TRUE(std::isnan(values[3].scalar));
}

TEST(TensorBoard, TwoWritersOfOneSecondGetTwoFiles) {
  const TemporaryFolder temporary;
  const TensorBoardWriter first(temporary.path(), 1.0);
  const TensorBoardWriter second(temporary.path(), 1.0);
  EXPECT_NE(first.path(), second.path());
}

TEST(TensorBoard, FileCutAnywhereGivesWhatCameBefore) {
  const TemporaryFolder temporary;
  TensorBoardWriter writer(temporary.path(), 1.0);
  writer.scalars(1, 1.0, {{"a", 1}});
  const size_t whole_first = read_text_file(writer.path()).size();
  writer.scalars(2, 1.0, {{"a", 2}});
  const std::string bytes = read_text_file(writer.path());
  const fs::path cut = temporary.path() / "cut";
  for (size_t size = 0; size < bytes.size(); ++size) {
    std::ofstream(cut, std::ios::binary) << bytes.substr(0, size);
    bool complete = true;
    const auto values = read_tensorboard(cut, &complete);
    EXPECT_EQ(values.size(), size >= whole_first ? 1u : 0u) << size;
    // A cut between two records cannot be told from a shorter file.
    EXPECT_EQ(complete, size == 40 || size == whole_first) << size;
  }
}

TEST(TensorBoard, EveryDamagedByteIsSeen) {
  const TemporaryFolder temporary;
  TensorBoardWriter writer(temporary.path(), 1.0);
  writer.scalars(1, 1.0, {{"a", 1}});
  const std::string bytes = read_text_file(writer.path());
  const fs::path bad = temporary.path() / "bad";
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    std::ofstream(bad, std::ios::binary) << damaged;
    EXPECT_THROW((void)read_tensorboard(bad), Error) << i;
  }
}

TEST(TensorBoard, ResumeWritesANewFile) {
  const TemporaryFolder temporary;
  RunInfo info;
  info.folder = temporary.path();
  info.config_json = "{}";
  const Metrics metrics{{"reward", 1}};
  const Metrics eval_metrics{{"reward", 1}, {"eval/correct", 0.25}};
  for (const int64_t start : {0, 5}) {
    TensorBoardObserver observer;
    info.start_step = start;
    observer.on_start(info);
    observer.on_step({start + 1, 10, 0.5, 0.1, metrics, {}});
    observer.on_eval({start + 1, "held-out", 1, 4, 0.5, eval_metrics});
    observer.on_end({});
  }
  std::set<int64_t> steps;
  int files = 0;
  for (const auto& entry : fs::directory_iterator(temporary.path())) {
    ++files;
    std::set<std::string> tags;
    for (const auto& value : read_tensorboard(entry.path())) {
      tags.insert(value.tag);
      if (value.tag == "reward") steps.insert(value.step);
      if (value.tag == "eval_accuracy") {
        EXPECT_EQ(value.scalar, 0.25f);
      }
    }
    EXPECT_EQ(tags, (std::set<std::string>{"config", "epoch", "eval/correct", "eval_accuracy",
                                           "eval_reward", "reward", "step_time"}));
  }
  EXPECT_EQ(files, 2);
  EXPECT_EQ(steps, (std::set<int64_t>{1, 6}));
}

}  // namespace
}  // namespace temper
