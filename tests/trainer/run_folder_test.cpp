#include "temper/trainer/run_folder.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/hash.h"
#include "temper/core/rng.h"
#include "temporary_folder.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

/// Content that a step decides, with sizes around a hash block.
std::string content_of(int64_t step, int file) {
  return std::string(static_cast<size_t>(31 + file + step % 3), static_cast<char>('a' + step % 26));
}

fs::path save(const RunFolder& run, int64_t step) {
  CheckpointWriter writer = run.begin(step);
  fs::create_directories(writer.folder() / "model");
  write(writer.folder() / "state.json", content_of(step, 0));
  write(writer.folder() / "model" / "weights.bin", content_of(step, 1));
  return writer.commit();
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

TEST(ContentHash, ValuesOfASecondImplementation) {
  // Made by the ten lines of the definition in another language.
  EXPECT_EQ(content_hash64(""), 0xb9b7de19a608ff49u);
  EXPECT_EQ(content_hash64("temper"), 0xe8e420081d14d7f9u);
  EXPECT_EQ(content_hash64(std::string(1000, 'x') + "yz"), 0xc728027edef1f5f0u);
}

TEST(ContentHash, EveryBitAndTheLengthMatter) {
  for (const size_t size : {1u, 31u, 32u, 33u, 100u}) {
    const std::string text(size, 'q');
    const uint64_t hash = content_hash64(text);
    EXPECT_NE(hash, content_hash64(text + '\0')) << size;
    for (size_t bit = 0; bit < 8 * size; ++bit) {
      std::string changed = text;
      changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
      EXPECT_NE(hash, content_hash64(changed)) << size << " bit " << bit;
    }
  }
}

TEST(RunFolder, RefusesARunUnlessResumed) {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "run";
  RunFolder::create(path).write_config("{}");
  const std::string message = message_of([&] { (void)RunFolder::create(path); });
  EXPECT_NE(message.find("--resume"), std::string::npos) << message;
  EXPECT_NE(message.find("--output"), std::string::npos) << message;
  EXPECT_EQ(RunFolder::resume(path).path(), path);
  write(temporary.path() / "file", "");
  EXPECT_NE(message_of([&] { (void)RunFolder::create(temporary.path() / "file"); }), "");
  // An empty folder that somebody made beforehand is no run.
  fs::create_directories(temporary.path() / "empty");
  EXPECT_EQ(message_of([&] { (void)RunFolder::create(temporary.path() / "empty"); }), "");
}

TEST(Checkpoint, AppearsWholeWithItsManifest) {
  const TemporaryFolder temporary;
  const RunFolder run = RunFolder::create(temporary.path());
  EXPECT_FALSE(newest_complete_checkpoint(run.path()));
  const fs::path folder = save(run, 7);
  EXPECT_EQ(folder, run.checkpoints() / "step-7");
  EXPECT_EQ(names_in(run.checkpoints()), std::set<std::string>{"step-7"});
  EXPECT_EQ(names_in(folder), (std::set<std::string>{"MANIFEST.json", "model", "state.json"}));
  EXPECT_FALSE(checkpoint_damage(folder, VerifyLevel::kHashes));
  save(run, 12);
  ASSERT_TRUE(newest_complete_checkpoint(run.path()));
  EXPECT_EQ(newest_complete_checkpoint(run.path())->step, 12);
}

TEST(Checkpoint, FilesLongerThanAPieceHaveTheHashOfTheirWholeContent) {
  const TemporaryFolder temporary;
  const RunFolder run = RunFolder::create(temporary.path());
  CheckpointWriter writer = run.begin(1);
  const size_t piece = size_t{1} << 20;
  std::map<std::string, std::string> files;
  for (const size_t size : {piece - 1, piece, piece + 1, 2 * piece + 33}) {
    std::string text(size, 'a');
    for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 2654435761u >> 13);
    files[std::to_string(size)] = text;
    write(writer.folder() / std::to_string(size), text);
  }
  const auto manifest = nlohmann::json::parse(read_text_file(writer.commit() / "MANIFEST.json"));
  ASSERT_EQ(manifest["files"].size(), files.size());
  for (const auto& file : manifest["files"]) {
    const uint64_t hash = std::stoull(file["hash"].get<std::string>(), nullptr, 16);
    EXPECT_EQ(hash, content_hash64(files[file["name"].get<std::string>()])) << file["name"];
  }
}

TEST(Checkpoint, WithoutCommitNothingIsLeft) {
  const TemporaryFolder temporary;
  const RunFolder run = RunFolder::create(temporary.path());
  {
    CheckpointWriter writer = run.begin(1);
    write(writer.folder() / "a", "x");
  }
  EXPECT_TRUE(names_in(run.checkpoints()).empty());
}

TEST(Checkpoint, ReplacesOneOfTheSameStep) {
  const TemporaryFolder temporary;
  const RunFolder run = RunFolder::create(temporary.path());
  save(run, 3);
  CheckpointWriter writer = run.begin(3);
  write(writer.folder() / "other", "x");
  const fs::path folder = writer.commit();
  EXPECT_EQ(names_in(folder), (std::set<std::string>{"MANIFEST.json", "other"}));
  EXPECT_EQ(names_in(run.checkpoints()), std::set<std::string>{"step-3"});
  EXPECT_NE(message_of([&] { (void)writer.commit(); }), "");
}

TEST(Checkpoint, BrokenOnesAreSkipped) {
  const auto damage = [](const std::function<void(const fs::path&)>& harm) {
    const TemporaryFolder temporary;
    const RunFolder run = RunFolder::create(temporary.path());
    save(run, 1);
    harm(save(run, 2));
    const auto newest = newest_complete_checkpoint(run.path());
    EXPECT_TRUE(newest && newest->step == 1);
    return checkpoint_damage(run.checkpoints() / "step-2", VerifyLevel::kHashes).value_or("");
  };
  EXPECT_EQ(damage([](const fs::path& f) { fs::remove(f / "MANIFEST.json"); }),
            "it has no MANIFEST.json");
  EXPECT_EQ(damage([](const fs::path& f) { fs::remove(f / "state.json"); }),
            "state.json is missing");
  EXPECT_EQ(damage([](const fs::path& f) { write(f / "state.json", "short"); }),
            "state.json has 5 bytes, the manifest says 33");
  EXPECT_EQ(
      damage([](const fs::path& f) { write(f / "model" / "weights.bin", std::string(34, 'x')); }),
      "model/weights.bin does not have the content that the manifest says");
  EXPECT_NE(damage([](const fs::path& f) { write(f / "MANIFEST.json", "{\"format\":1"); }), "");
  EXPECT_NE(damage([](const fs::path& f) { write(f / "MANIFEST.json", "[]"); }), "");
  EXPECT_EQ(damage([](const fs::path& f) { write(f / "MANIFEST.json", "{\"format\":2}"); }),
            "its manifest has format 2, this program reads 1");
  for (const char* name : {"../step-1/state.json", "/etc/passwd", "a//b", ""}) {
    const std::string manifest =
        concat(R"({"format":1,"files":[{"name":")", name, R"(","size":33,"hash":"0"}]})");
    EXPECT_NE(damage([&](const fs::path& f) {
                write(f / "MANIFEST.json", manifest);
              }).find("must not leave its folder"),
              std::string::npos)
        << name;
  }
}

TEST(Checkpoint, OnlyPlainStepNamesCount) {
  const TemporaryFolder temporary;
  const RunFolder run = RunFolder::create(temporary.path());
  save(run, 1);
  for (const char* name : {"step-", "step-01", "step--2", "step-3x", "step-99999999999999999999"}) {
    fs::create_directories(run.checkpoints() / name);
  }
  ASSERT_EQ(list_checkpoints(run.path()).size(), 1u);
}

TEST(Checkpoint, LinksAreRefused) {
  const TemporaryFolder temporary;
  const RunFolder run = RunFolder::create(temporary.path());
  CheckpointWriter writer = run.begin(1);
  fs::create_symlink("/etc/hostname", writer.folder() / "link");
  EXPECT_NE(message_of([&] { (void)writer.commit(); }).find("link"), std::string::npos);
}

TEST(Checkpoint, KeepLastKeepsTheBestToo) {
  const TemporaryFolder temporary;
  const RunFolder run = RunFolder::create(temporary.path());
  for (int64_t step = 1; step <= 6; ++step) save(run, step);
  write(run.checkpoints() / "step-6" / "state.json", "broken");
  run.keep_last(2, 3);
  EXPECT_EQ(names_in(run.checkpoints()),
            (std::set<std::string>{"step-3", "step-4", "step-5", "step-6"}));
  EXPECT_THROW(run.keep_last(0), Error);
}

TEST(Checkpoint, ResumeCleansUpAndRestoresWhatWasBeingReplaced) {
  const TemporaryFolder temporary;
  const RunFolder run = RunFolder::create(temporary.path());
  save(run, 1);
  save(run, 2);
  fs::rename(run.checkpoints() / "step-2", run.checkpoints() / ".step-2.replaced");
  fs::create_directories(run.checkpoints() / ".step-2.partial" / "model");
  fs::create_directories(run.checkpoints() / ".step-1.replaced");
  (void)RunFolder::resume(run.path());
  EXPECT_EQ(names_in(run.checkpoints()), (std::set<std::string>{"step-1", "step-2"}));
  EXPECT_EQ(newest_complete_checkpoint(run.path())->step, 2);
}

TEST(Checkpoint, TooLittleRoomIsSaidBeforeAnythingIsWritten) {
  const TemporaryFolder temporary;
  const RunFolder run = RunFolder::create(temporary.path());
  const std::string message = message_of([&] { (void)run.begin(1, uint64_t{1} << 62); });
  EXPECT_NE(message.find("needs 4611686018427387904 bytes"), std::string::npos) << message;
  EXPECT_TRUE(names_in(run.checkpoints()).empty());
  EXPECT_THROW((void)run.begin(-1), Error);
}

/// Runs `body` in a child process and waits; true if it returned true.
bool in_child(const std::function<bool()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// A full disk is played by a limit on file sizes, which makes writes fail in the same way.
TEST(Checkpoint, FailedWriteLeavesOlderCheckpointsIntact) {
  const TemporaryFolder temporary;
  const RunFolder run = RunFolder::create(temporary.path());
  save(run, 1);
  EXPECT_TRUE(in_child([&] {
    CheckpointWriter writer = run.begin(2);
    write(writer.folder() / "state.json", "x");
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{8, 8};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message = message_of([&] { (void)writer.commit(); });
    return message.find("Older checkpoints are intact") != std::string::npos &&
           message.find("step 2") != std::string::npos;
  }));
  EXPECT_EQ(names_in(run.checkpoints()), std::set<std::string>{"step-1"});
  EXPECT_EQ(newest_complete_checkpoint(run.path())->step, 1);
}

/// Saves for ever; reports after each small act: '.' and, once a commit returned, 'C'.
[[noreturn]] void save_until_killed(const fs::path& folder, int report, int64_t first) {
  const RunFolder run = RunFolder::resume(folder);
  const auto say = [&](char c) {
    if (::write(report, &c, 1) != 1) ::_exit(2);
  };
  for (int64_t step = first;; ++step) {
    CheckpointWriter writer = run.begin(step);
    say('.');
    fs::create_directories(writer.folder() / "model");
    write(writer.folder() / "state.json", content_of(step, 0));
    say('.');
    write(writer.folder() / "model" / "weights.bin", content_of(step, 1));
    say('.');
    (void)writer.commit();
    say('C');
    run.keep_last(2);
    say('.');
  }
}

// Thirty children are killed at random moments: after a random number of reports and then a random
// number of system calls of the parent, so that the child is anywhere inside its next act.
TEST(Checkpoint, NewestLoadsAfterAKillAtAnyMoment) {
  const TemporaryFolder temporary;
  RngStream random(20240817, RngPurpose::kTest, 0);
  int64_t step = 0;
  for (int round = 0; round < 30; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(ends[0]);
      save_until_killed(temporary.path(), ends[1], step + 1);
    }
    ::close(ends[1]);
    int64_t committed = 0;
    char said = 0;
    const auto listen = [&] {
      if (::read(ends[0], &said, 1) == 1) committed += said == 'C';
    };
    for (uint64_t n = 1 + random.next_below(15); n > 0; --n) listen();
    for (uint64_t n = random.next_below(4000); n > 0; --n) (void)::getppid();
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(ends[0], &said, 1) == 1) committed += said == 'C';
    ::close(ends[0]);

    const auto newest = newest_complete_checkpoint(temporary.path(), VerifyLevel::kHashes);
    if (step + committed > 0) {
      ASSERT_TRUE(newest) << "round " << round;
      // A commit that was reported is never lost; one that was not yet reported may count.
      EXPECT_GE(newest->step, step + committed) << "round " << round;
      EXPECT_LE(newest->step, step + committed + 1) << "round " << round;
      EXPECT_EQ(read_text_file(newest->folder / "model" / "weights.bin"),
                content_of(newest->step, 1));
      EXPECT_EQ(read_text_file(newest->folder / "state.json"), content_of(newest->step, 0));
      step = newest->step;
    }
  }
  EXPECT_GT(step, 30) << "the children must have got something done";
  (void)RunFolder::resume(temporary.path());
  for (const std::string& name : names_in(temporary.path() / "checkpoints")) {
    EXPECT_TRUE(name.starts_with("step-")) << name;
  }
}

}  // namespace
}  // namespace temper
