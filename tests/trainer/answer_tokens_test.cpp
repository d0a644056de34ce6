// What becomes of words on their way to an answer's tokens; a character is a token here.
#include "temper/trainer/answer_tokens.h"

#include <gtest/gtest.h>

#include "temper/trainer/preference_tokens.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

std::string words(const ModelText& text, std::span<const int32_t> ids) {
  return text.tokenizer().decode(ids, false);
}

const ModelText& tiny_text() {
  static const PolicyModel policy = tiny_policy();
  return policy.text();
}

CompletionData rows(const std::string& lines, CompletionReadOptions options = {}) {
  return parse_completions(lines, "rows", options);
}

/// The tokens that count, the others as dots.
std::string counted(const ModelText& text, const AnswerGroup& g) {
  std::string out;
  for (size_t i = 0; i < g.answers[0].ids.size(); ++i) {
    const bool counts = g.answers[0].mask.empty() || g.answers[0].mask[i] != 0;
    out += counts ? words(text, {&g.answers[0].ids[i], 1}) : ".";
  }
  return out;
}

TEST(AnswerTokens, APairSharesItsPromptAndEndsWithTheEndToken) {
  const ModelText& text = tiny_text();
  const auto t = tokenize_answer_pairs(
      rows(R"({"prompt":"2+2=","chosen":"4","rejected":"45"})"), text, {});
  ASSERT_EQ(t.groups.size(), 1u);
  EXPECT_EQ(words(text, t.groups[0].prompt), "2+2=");
  EXPECT_EQ(words(text, t.groups[0].answers[0].ids), "4<|im_end|>");
  EXPECT_EQ(words(text, t.groups[0].answers[1].ids), "45<|im_end|>");
  EXPECT_EQ(t.longest, 7);
}

TEST(AnswerTokens, AConversationIsWrittenByItsTemplate) {
  const ModelText& text = tiny_text();
  const auto t = tokenize_answers(
      rows(R"({"prompt":[{"role":"user","content":"hi"}],)"
           R"("completion":[{"role":"assistant","content":"yo"}],"label":false})"),
      text, {});
  EXPECT_EQ(words(text, t.groups[0].prompt),
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(words(text, t.groups[0].answers[0].ids), "yo<|im_end|>\n");
  EXPECT_EQ(t.groups[0].label, 0);
}

TEST(AnswerTokens, TheAssistantsTurnsAlone) {
  const ModelText& text = tiny_text();
  const auto t = tokenize_answers(
      rows(R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"bc"},)"
           R"({"role":"user","content":"d"},{"role":"assistant","content":"e"}]})"),
      text, {}, AnswerMask::kAssistant);
  const auto dots = [](size_t n) { return std::string(n, '.'); };
  // "<|im_start|>user\na<|im_end|>\n" is 9 tokens, "<|im_start|>assistant\n" 11.
  EXPECT_EQ(counted(text, t.groups[0]),
            dots(20) + "bc<|im_end|>\n" + dots(20) + "e<|im_end|>\n");
  const auto all = tokenize_answers(rows(R"({"text":"ab"})"), text, {}, AnswerMask::kAll);
  EXPECT_EQ(counted(text, all.groups[0]), "ab<|im_end|>");
  EXPECT_NE(error_of([&] {
              (void)tokenize_answers(rows(R"({"text":"ab"})"), text, {}, AnswerMask::kAssistant);
            }).find("rows:1"),
            std::string::npos);
}

TEST(AnswerTokens, LongTextsLoseTheirEndOrGo) {
  const ModelText& text = tiny_text();
  const CompletionData data = rows(
      "{\"prompt\":\"abc\",\"completion\":\"defg\"}\n"
      "{\"prompt\":\"abcdef\",\"completion\":\"g\"}\n"
      "{\"prompt\":\"a\",\"completion\":\"b\"}");
  const auto cut = tokenize_answers(data, text, {.max_length = 5});
  ASSERT_EQ(cut.groups.size(), 2u);
  EXPECT_EQ(words(text, cut.groups[0].answers[0].ids), "de");
  EXPECT_EQ(cut.cut, 1);
  EXPECT_EQ(cut.too_long, 1);
  EXPECT_EQ(cut.longest, 5);
  const auto dropped = tokenize_answers(data, text, {.max_length = 5, .too_long = "drop"});
  EXPECT_EQ(dropped.groups.size(), 1u);
  EXPECT_NE(cut.hash, dropped.hash);
  EXPECT_NE(error_of([&] { (void)tokenize_answers(data, text, {.max_length = 1}); })
                .find("data.limit.max_length"),
            std::string::npos);
}

TEST(AnswerTokens, WrappedTextsHoldAllRows) {
  const ModelText& text = tiny_text();
  const CompletionData data = rows(
      "{\"prompt\":\"ab\",\"completion\":\"cd\"}\n"
      "{\"prompt\":\"e\",\"completion\":\"fghi\"}");
  const auto t = tokenize_answers(data, text, {.max_length = 6, .packing = "wrapped"});
  ASSERT_EQ(t.groups.size(), 2u);  // "ab" and "e" are prompts.
  EXPECT_EQ(counted(text, t.groups[0]), "..cd<|im_end|>.");
  EXPECT_EQ(counted(text, t.groups[1]), "fghi<|im_end|>");
  EXPECT_TRUE(t.groups[0].prompt.empty());
  EXPECT_EQ(t.cut + t.too_long, 0);
  EXPECT_EQ(t.longest, 6);
  const auto all = tokenize_answers(data, text, {.max_length = 6, .packing = "wrapped"}, AnswerMask::kAll);
  EXPECT_EQ(counted(text, all.groups[0]), "abcd<|im_end|>e");
  const auto refusal = [&](const std::string& row) {
    return error_of([&] {
      const CompletionData one = rows(row);
      const TokenLimit limit{.packing = "wrapped"};
      (void)(one.form == DataForm::kPreference ? tokenize_answer_pairs(one, text, limit)
                                               : tokenize_answers(one, text, limit));
    });
  };
  EXPECT_NE(refusal(R"({"prompt":"a","completion":"b","label":true})").find("rows:1: a row with a label"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"prompt":"a","chosen":"b","rejected":"c"})").find("data.limit.packing"),
            std::string::npos);
}

TEST(AnswerTokens, PairsShowTheirToolsToTheTemplate) {
  ModelSource source = tiny_source();
  source.chat_template =
      "{% if tools %}[{{ tools[0]['name'] }}]{% endif %}{% for m in messages %}"
      "{{ m['role'][0] }}:{{ m['content'] or '' }}{% for c in m['tool_calls'] %}({{ c['id'] }}){% endfor %};"
      "{% endfor %}{% if add_generation_prompt %}a:{% endif %}";
  const ModelText text(source);
  const std::string row =
      R"({"prompt":[{"role":"user","content":"u"}],"chosen":[{"role":"assistant","content":null,)"
      R"("tool_calls":[{"id":"x"}]}],"rejected":[{"role":"assistant","content":"r"}],"tools":[{"name":"add"}]})";
  const auto t = tokenize_answer_pairs(rows(row), text, {});
  EXPECT_EQ(words(text, t.groups[0].prompt), "[add]u:u;a:");
  EXPECT_EQ(words(text, t.groups[0].answers[0].ids), "(x);");
  EXPECT_EQ(words(text, t.groups[0].answers[1].ids), "r;");
  // And for reward models, whose pairs share what both sides begin with.
  const auto p = tokenize_pairs(parse_preferences(row, "rows"), text, 100);
  EXPECT_EQ(words(text, p.pairs[0].shared), "[add]u:u;a:");
  EXPECT_EQ(words(text, p.pairs[0].chosen), "(x);");
  EXPECT_EQ(words(text, p.pairs[0].rejected), "r;");
}

TEST(AnswerTokens, SingleAnswersAreNoPairs) {
  const std::string error = error_of([&] {
    (void)tokenize_answer_pairs(rows(R"({"prompt":"a","completion":"b"})"), tiny_text(), {});
  });
  EXPECT_NE(error.find("prompt_completion"), std::string::npos) << error;
}

}  // namespace
}  // namespace temper::testing_trainer
