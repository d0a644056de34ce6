// What student and teacher read of a file's rows.
#include "distill_case.h"

namespace temper::testing_trainer {
namespace {

std::string words(const PolicyModel& policy, const std::vector<int32_t>& ids) {
  return policy.text().tokenizer().decode(ids, false);
}

DistillRow only_row(const PolicyModel& policy, const std::string& line, const std::string& system) {
  const DistillRows rows = distill_rows(policy, line + "\n", system);
  EXPECT_EQ(rows.rows.size(), 1u);
  return rows.rows[0];
}

TEST(DistillRows, TheTeacherReadsItsSystemPromptFirst) {
  const PolicyModel policy = tiny_policy();
  const DistillRow row = only_row(
      policy, R"({"prompt":[{"role":"user","content":"hi"}],"completion":[{"role":"assistant","content":"yo"}]})",
      "Be kind.");
  const std::string own = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(words(policy, row.student.prompt), own);
  EXPECT_EQ(words(policy, row.teacher_prompt), "<|im_start|>system\nBe kind.<|im_end|>\n" + own);
  EXPECT_EQ(words(policy, row.student.answers.at(0).ids), "yo<|im_end|>\n");
  EXPECT_EQ(row.teacher_rows(), std::ssize(row.teacher_prompt) + 3);
}

TEST(DistillRows, ARowsOwnSystemMessageStaysBehindIt) {
  const PolicyModel policy = tiny_policy();
  const DistillRow row = only_row(
      policy, R"({"prompt":[{"role":"system","content":"Own."},{"role":"user","content":"hi"}],"completion":[{"role":"assistant","content":"yo"}]})",
      "Be kind.");
  EXPECT_EQ(words(policy, row.teacher_prompt),
            "<|im_start|>system\nBe kind.\n\nOwn.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
            "<|im_start|>assistant\n");
}

TEST(DistillRows, TheLastTurnOfAConversationIsTheAnswer) {
  const PolicyModel policy = tiny_policy();
  const DistillRow row = only_row(
      policy, R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"},{"role":"assistant","content":"d"}]})",
      "S");
  EXPECT_EQ(words(policy, row.student.answers.at(0).ids), "d<|im_end|>\n");
  EXPECT_TRUE(words(policy, row.student.prompt).ends_with("c<|im_end|>\n<|im_start|>assistant\n"));
}

TEST(DistillRows, TextsAndPromptsAlone) {
  const PolicyModel policy = tiny_policy();
  const DistillRow text = only_row(policy, R"({"prompt":"2+2=","completion":"4"})", "Be right.");
  EXPECT_EQ(words(policy, text.student.prompt), "2+2=");
  EXPECT_EQ(words(policy, text.teacher_prompt), "Be right.\n\n2+2=");
  const DistillRow alone = only_row(policy, R"({"prompt":"2+2="})", "Be right.");
  EXPECT_FALSE(alone.has_answer());
  EXPECT_EQ(alone.teacher_prompt, text.teacher_prompt);
  const DistillRow same = only_row(policy, R"({"prompt":"2+2=","completion":"4"})", "");
  EXPECT_EQ(same.teacher_prompt, same.student.prompt);
}

TEST(DistillRows, TheHashKnowsWhatTheTeacherReads) {
  const PolicyModel policy = tiny_policy();
  const std::string lines = question_lines(3);
  const uint64_t one = distill_rows(policy, lines, "A").hash;
  EXPECT_EQ(distill_rows(policy, lines, "A").hash, one);
  EXPECT_NE(distill_rows(policy, lines, "B").hash, one);
  EXPECT_NE(distill_rows(policy, question_lines(4), "A").hash, one);
}

TEST(DistillRows, RowsWithoutAPromptAreNamed) {
  const PolicyModel policy = tiny_policy();
  const std::string lines = "{\"text\":\"abc\"}\n{\"text\":\"def\"}\n";
  EXPECT_EQ(distill_rows(policy, lines, "", false).rows.size(), 2u);
  for (const char* system : {"", "S"}) {
    const std::string error = error_of([&] { (void)distill_rows(policy, lines, system); });
    EXPECT_NE(error.find("rows.jsonl:1: this row has no prompt"), std::string::npos) << error;
  }
  const std::string longer = "{\"prompt\":\"" + std::string(2000, 'a') + "\"}\n";
  const std::string error = error_of([&] { (void)distill_rows(policy, longer, ""); });
  EXPECT_NE(error.find("data.limit.max_length"), std::string::npos) << error;
}

}  // namespace
}  // namespace temper::testing_trainer
