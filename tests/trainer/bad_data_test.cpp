// What becomes of bad rows in `temper train` and `temper data check`, as a user meets it.
#include <zlib.h>

#include "cli/run_program.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using cli_test::Folder;
using cli_test::Outcome;
using cli_test::Words;

struct BadRow {
  std::string line;
  std::string words;  ///< In its error.
};

/// A method of `temper train`, a row for it, and rows that it cannot use.
struct Method {
  std::string name;
  std::string good;
  std::vector<BadRow> bad;
  std::string rows_per_step = "offline.rows_per_step=2";
};

std::vector<Method> methods() {
  const std::string broken = "{\"prompt\": \"p\", \"completion\": \"\xff\", \"label\": true}";
  const std::string absurd = "{\"prompt\": \"" + std::string(5000, 'x') + "\"}";
  const std::vector<BadRow> of_pairs{
      {R"({"prompt": "p", "chosen": "a", "rejected": " "})", "no words"},
      {R"({"prompt": "p", "chosen": "a", "rejected": "a"})", "both answers are the same"},
      {R"({"prompt": "p", "chosen": "a"})", "\"rejected\""},
      {broken, "not valid UTF-8"},
      {absurd, "longer than 2000 bytes"},
      {R"({"prompt": "p", )", "ends inside its JSON"}};
  std::vector<BadRow> of_answers{{R"({"prompt": "p", "completion": "", "label": true})", "no words"},
                                 {R"({"prompt": "p", "label": true})", "\"completion\""},
                                 {broken, "not valid UTF-8"},
                                 {absurd, "longer than 2000 bytes"}};
  std::vector<BadRow> of_labels = of_answers;
  of_labels.push_back({R"({"prompt": "p", "completion": "a"})", "\"label\""});
  const std::string pair = R"({"prompt": "p", "chosen": "a", "rejected": "b"})";
  return {{"sft", R"({"prompt": "p", "completion": "a"})", of_answers},
          {"kto", R"({"prompt": "p", "completion": "a", "label": true})", of_labels},
          {"dpo", pair, of_pairs},
          {"reward", pair, of_pairs, "reward.pairs_per_step=2"}};
}

std::string good_rows(const Method& m) {
  return m.good + "\n" + m.good + "\n" + m.good + "\n" + m.good + "\n";
}

Outcome train(const Method& m, const std::string& file, const Folder& folder, const Words& more = {}) {
  Words words{"train", m.name, "--model", tiny_model().string(), "--output", folder / "run",
              "--force", "--set", "data.path=" + file, "--set", "trainer.steps=1", "--set",
              m.rows_per_step, "--set", "data.read.max_line_bytes=2000"};
  for (const std::string& w : more) words.insert(words.end(), {"--set", w});
  return cli_test::temper(words);
}

TEST(BadData, IsAnErrorOfItsLine) {
  for (const Method& m : methods()) {
    for (const BadRow& bad : m.bad) {
      const Folder folder;
      const Outcome o = train(m, folder.write("rows.jsonl", good_rows(m) + bad.line + "\n"), folder);
      EXPECT_EQ(o.code, 1) << m.name << ": " << bad.words;
      EXPECT_TRUE(o.says("rows.jsonl:5:")) << m.name << ": " << o.err;
      EXPECT_TRUE(o.says(bad.words)) << m.name << ": " << bad.words << " in " << o.err;
    }
  }
}

TEST(BadData, IsCountedAndListedWhenItIsToBeSkipped) {
  for (const Method& m : methods()) {
    const Folder folder;
    std::string text = good_rows(m);
    for (const BadRow& bad : m.bad) text += bad.line + "\n";
    const std::string file = folder.write("rows.jsonl", text + m.good + "\n");
    const Outcome o = train(m, file, folder, {"data.read.skip_bad=true"});
    EXPECT_EQ(o.code, 0) << m.name << ": " << o.err;
    for (size_t i = 0; i < m.bad.size(); ++i) {
      const std::string line = "rows.jsonl:" + std::to_string(5 + i) + ":";
      EXPECT_TRUE(o.says(line)) << m.name << ": " << m.bad[i].words << " in " << o.err;
    }
    const Outcome check =
        cli_test::temper({"data", "check", file, "--json", "--set", "max_line_bytes=2000"});
    ASSERT_EQ(check.code, 0) << check.err;
    const auto report = check.json();
    EXPECT_EQ(report["rows"], 5) << m.name;
    const int left_out = report["bad_rows"].get<int>() + report["empty_answers"].get<int>() +
                         report["equal_answers"].get<int>();
    EXPECT_EQ(left_out, std::ssize(m.bad)) << m.name << ": " << check.out;
    EXPECT_EQ(report["problems"].size(), m.bad.size()) << m.name;
  }
}

TEST(BadData, AFileCutShortIsAnErrorWhateverIsSkipped) {
  const Folder folder;
  for (const Method& m : methods()) {
    const std::string file = folder.write("rows.jsonl.gz", "");
    std::string text;
    for (int i = 0; i < 3000; ++i) text += m.good.substr(0, m.good.size() - 1) + ", \"n\": " + std::to_string(i * 7919) + "}\n";
    gzFile packed = gzopen(file.c_str(), "wb");
    ASSERT_EQ(gzwrite(packed, text.data(), static_cast<unsigned>(text.size())), std::ssize(text));
    gzclose(packed);
    std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
    const Outcome o = train(m, file, folder, {"data.read.skip_bad=true"});
    EXPECT_EQ(o.code, 1) << m.name;
    EXPECT_TRUE(o.says("the gzip data ends too early")) << o.err;
    EXPECT_TRUE(o.says("whole up to line ")) << o.err;
    const Outcome check = cli_test::temper({"data", "check", file});
    EXPECT_EQ(check.code, 1);
    EXPECT_TRUE(check.says("the gzip data ends too early")) << check.err;
  }
}

TEST(BadData, OnlyTheRightFormIsTrainedOn) {
  const Folder folder;
  const auto all = methods();
  const std::string singles = folder.write("singles.jsonl", good_rows(all[0]));
  for (const Method& m : {all[2], all[3]}) {  // Pairs are wanted.
    const Outcome o = train(m, singles, folder);
    EXPECT_EQ(o.code, 1) << m.name;
    EXPECT_TRUE(o.says("singles.jsonl")) << o.err;
  }
  const Outcome steps = train(
      all[1],
      folder.write("steps.jsonl",
                   R"({"prompt": "2 + 2 - 1 =", "completions": ["4", "3"], "labels": [true, false]})" "\n"),
      folder, {"data.read.form=steps"});
  EXPECT_EQ(steps.code, 0) << steps.err;  // KTO learns single steps.
  const Folder other;
  const Outcome wrapped = train(all[0], singles, other, {"data.limit.packing=wrapped", "data.limit.max_length=6"});
  EXPECT_EQ(wrapped.code, 0) << wrapped.err;
}

}  // namespace
}  // namespace temper::testing_trainer
