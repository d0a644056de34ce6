#include "temper/trainer/report.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "synthetic_run.h"
#include "temporary_folder.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

bool has(const std::string& page, std::string_view text) {
  return page.find(text) != std::string::npos;
}

size_t count_of(const std::string& page, std::string_view text) {
  size_t count = 0;
  for (size_t at = page.find(text); at != std::string::npos; at = page.find(text, at + 1)) ++count;
  return count;
}

// Published example (Newcombe 1998, table I): 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to
// 0.1611; 1 of 29 gives 0.0061 to 0.1718.
TEST(Wilson, PublishedExamples) {
  EXPECT_NEAR(wilson_interval(81, 263).low, 0.2553, 5e-5);
  EXPECT_NEAR(wilson_interval(81, 263).high, 0.3662, 5e-5);
  EXPECT_NEAR(wilson_interval(1, 29).low, 0.0061, 5e-5);
  EXPECT_NEAR(wilson_interval(1, 29).high, 0.1718, 5e-5);
  EXPECT_EQ(wilson_interval(0, 20).low, 0.0);
  EXPECT_NEAR(wilson_interval(0, 20).high, 0.1611, 5e-5);
  EXPECT_EQ(wilson_interval(20, 20).high, 1.0);
  EXPECT_EQ(wilson_interval(0, 0).low, 0.0);
  EXPECT_EQ(wilson_interval(0, 0).high, 1.0);
  EXPECT_THROW((void)wilson_interval(3, 2), Error);
  EXPECT_THROW((void)wilson_interval(-1, 2), Error);
}

// With TEMPER_SYNTHETIC_RUN set, the run folder is written there and stays, to be looked at.
TEST(Report, TellsTheWholeRun) {
  const TemporaryFolder temporary;
  const char* keep = std::getenv("TEMPER_SYNTHETIC_RUN");
  const fs::path folder = keep != nullptr ? fs::path(keep) : temporary.path() / "sums <1>";
  write_synthetic_run(folder, 240);
  write_report(folder);
  const std::string page = read_text_file(folder / "report.html");
  for (const char* title :
       {"Held-out accuracy", "Rewards by function", "KL to the reference", "Entropy",
        "Completion length", "Clipped tokens", "Groups without signal", "Gradient norm",
        "Learning rate", "Where the time went", "Speed", "Completions, early and late",
        "All 8 settings", "rollout.temperature", "explores no more", "jumped to 30",
        "Watch the reward"}) {
    EXPECT_TRUE(has(page, title)) << title;
  }
  EXPECT_TRUE(has(page, "12 \xE2\x86\x92 67 %")) << "24 of 200 before, 134 of 200 after";
  EXPECT_TRUE(has(page, "95 % interval"));
  EXPECT_EQ(count_of(page, "<h3>Reward</h3>"), 1u);
  EXPECT_LT(page.size(), size_t{3} << 20);
}

TEST(Report, IsOneFileWithoutScriptsOrAddresses) {
  const TemporaryFolder temporary;
  write_synthetic_run(temporary.path() / "run", 60);
  const std::string page = report_html(temporary.path() / "run");
  for (const char* bad : {"<script", "http://", "https://", "src=", "href=", "url(", "@import"}) {
    EXPECT_FALSE(has(page, bad)) << bad;
  }
  EXPECT_EQ(page, report_html(temporary.path() / "run"));
}

// Everything from a file is text: names of metrics, prompts, rewards, alarms, settings, the folder.
TEST(Report, EscapesEverything) {
  const TemporaryFolder temporary;
  const fs::path folder = temporary.path() / "<i>run";
  fs::create_directories(folder);
  const std::string x = "<script>alert('1')</script>\\\" onload=\\\"x";
  write(folder / "config.json", "{\"" + x + "\":\"" + x + "\",\"list\":[\"" + x + "\"]}");
  write(folder / "metrics.jsonl", "{\"step\":1,\"" + x + "\":1,\"time/" + x + "\":1,\"rewards/" +
                                      x + "/mean\":2,\"rewards/b/mean\":2}\n");
  write(folder / "completions.jsonl", "{\"step\":1,\"prompt\":\"" + x +
                                          "\",\"completion\":\"</pre>" + x + "\",\"rewards\":{\"" +
                                          x + "\":1}}\n");
  write(folder / "alarms.jsonl",
        "{\"step\":1,\"kind\":\"" + x + "\",\"sentence\":\"" + x + "\"}\n");
  write(folder / "eval.jsonl", "{\"step\":1,\"data\":\"" + x + "\",\"correct\":1,\"count\":2}\n");
  const std::string page = report_html(folder);
  EXPECT_FALSE(has(page, "<script"));
  EXPECT_FALSE(has(page, "<i>"));
  EXPECT_FALSE(has(page, "\" onload"));
  EXPECT_GE(count_of(page, "&lt;script&gt;"), 9u);
  EXPECT_EQ(count_of(page, "<pre"), count_of(page, "</pre>"));
}

TEST(Report, DamagedFilesAreSaidAndLeftOut) {
  const TemporaryFolder temporary;
  const fs::path& folder = temporary.path();
  write(folder / "config.json", "{\"a\":");
  write(folder / "metrics.jsonl",
        "{\"step\":2,\"reward\":null}\n\n{\"step\":1,\"reward\":0.5,\"text\":\"x\"}\nnot json\n"
        "{\"reward\":1}\n{\"step\":1e300,\"reward\":1}\n{\"step\":9223372036854775807}\n"
        "{\"step\":3,\"reward\":1e308}\n{\"step\":4,\"rew");
  write(folder / "eval.jsonl", "{\"step\":1,\"correct\":5,\"count\":3}\n");
  write(folder / "alarms.jsonl", "[]\n");
  const std::string page = report_html(folder);
  EXPECT_TRUE(has(page, "config.json could not be read"));
  EXPECT_TRUE(has(page, "metrics.jsonl: 5 of 8 lines could not be read and were left out."));
  EXPECT_TRUE(has(page, "eval.jsonl: 1 of 1 lines"));
  EXPECT_TRUE(has(page, "alarms.jsonl: 1 of 1 lines"));
  EXPECT_TRUE(has(page, "step 1, reward: 0.5"));
  EXPECT_TRUE(has(page, "no alarm was raised"));
}

TEST(Report, DeepNestingDoesNotOverflowTheStack) {
  const TemporaryFolder temporary;
  const std::string deep = std::string(300'000, '[') + std::string(300'000, ']');
  write(temporary.path() / "config.json", "{\"a\":" + deep + ",\"b\":7}");
  write(temporary.path() / "metrics.jsonl", "{\"step\":1,\"reward\":1,\"x\":" + deep + "}\n");
  const std::string page = report_html(temporary.path());
  EXPECT_TRUE(has(page, "<td>b</td><td>7</td>"));
  EXPECT_TRUE(has(page, "step 1, reward: 1"));
}

TEST(Report, LineWithoutEndIsReadInBoundedMemory) {
  const TemporaryFolder temporary;
  write(temporary.path() / "metrics.jsonl",
        "{\"step\":1,\"reward\":1}\n" + std::string(size_t{9} << 20, 'x'));
  EXPECT_TRUE(has(report_html(temporary.path()), "metrics.jsonl: 1 of 2 lines"));
}

TEST(Report, NothingToReportIsAnError) {
  const TemporaryFolder temporary;
  EXPECT_THROW(write_report(temporary.path()), Error);
  EXPECT_THROW(write_report(temporary.path() / "missing"), Error);
  write(temporary.path() / "config.json", "{}");
  write_report(temporary.path());
  EXPECT_TRUE(has(read_text_file(temporary.path() / "report.html"), "There is no metrics.jsonl"));
}

TEST(Report, LongCompletionsAreCutAtACharacter) {
  const TemporaryFolder temporary;
  std::string text(3999, 'a');
  for (int i = 0; i < 100; ++i) text += "\xC3\xA9";  // the limit of 4000 falls inside the first
  write(temporary.path() / "completions.jsonl",
        "{\"step\":1,\"prompt\":\"p\",\"completion\":\"" + text + "\"}\n");
  EXPECT_TRUE(has(report_html(temporary.path()),
                  std::string(3999, 'a') + " \xE2\x80\xA6 (200 bytes more)"));
}

}  // namespace
}  // namespace temper
