#include "temper/data/answers.h"

#include <gtest/gtest.h>

#include "temper/core/error.h"

namespace temper {
namespace {

using Ids = std::vector<int32_t>;

TEST(Answers, PromptOnceAndAnswersBehindIt) {
  AnswerGroup pair{.prompt = {10, 11, 12}, .answers = {{{20, 21}, {}}, {{30, 31, 32}, {1, 0, 1}}}};
  AnswerGroup single{.prompt = {40}, .answers = {{{50}, {}}}, .weight = 0.5};
  const AnswerGroup* groups[] = {&pair, &single};
  const AnswerTokens t = pack_answers(groups, true);
  EXPECT_EQ(t.tokens.ids, (Ids{10, 11, 12, 20, 30, 31, 40}));  // No row for an answer's last token.
  EXPECT_EQ(t.tokens.positions, (Ids{0, 1, 2, 3, 3, 4, 0}));
  ASSERT_EQ(t.tokens.segments.size(), 4u);
  EXPECT_EQ(t.tokens.segments[2].parent, 0);
  EXPECT_EQ(t.tokens.segments[3].parent, -1);
  EXPECT_EQ(t.rows, (Ids{2, 3, 2, 4, 5, 6, 0, 1}));  // Answers, then the first prompt's own tokens.
  EXPECT_EQ(t.targets, (Ids{20, 21, 30, 31, 32, 50, 11, 12}));
  EXPECT_EQ(t.sequence, (Ids{0, 0, 1, 1, 1, 2}));
  EXPECT_EQ(t.mask, (std::vector<float>{1, 1, 1, 0, 1, 0.5f}));
  EXPECT_EQ(t.prompt_tokens, 2);
  EXPECT_EQ(pair.active(1), 2);
  EXPECT_EQ(pair.tokens(), 11);
}

TEST(Answers, WithoutAPromptTheFirstTokenIsGiven) {
  AnswerGroup text{.answers = {{{5, 6, 7}, {1, 1, 0}}}};
  const AnswerGroup* groups[] = {&text};
  const AnswerTokens t = pack_answers(groups, true);
  EXPECT_EQ(t.tokens.ids, (Ids{5, 6}));
  EXPECT_EQ(t.rows, (Ids{0, 1}));
  EXPECT_EQ(t.targets, (Ids{6, 7}));
  EXPECT_EQ(t.mask, (std::vector<float>{1, 0}));
  EXPECT_EQ(t.prompt_tokens, 0);
  EXPECT_EQ(text.predicted(0), 2);
  EXPECT_EQ(text.active(0), 1);
}

TEST(Answers, WrappedTextsAreCutAtTheirLengthAndNowhereElse) {
  const std::vector<AnswerGroup> rows{
      {.prompt = {1, 2}, .answers = {{{3, 4, 5}, {}}}, .line = 1},
      {.answers = {{{6, 7}, {0, 1}}}, .line = 2},
      {.prompt = {8, 9, 10, 11, 12, 13, 14}, .answers = {{{15}, {}}}, .line = 3},
  };
  const auto texts = wrap_answers(rows, 4);
  ASSERT_EQ(texts.size(), 3u);  // 9 10 11 12 counts nothing.
  EXPECT_EQ(texts[0].answers[0].ids, (Ids{1, 2, 3, 4}));
  EXPECT_EQ(texts[0].answers[0].mask, (std::vector<uint8_t>{0, 0, 1, 1}));
  EXPECT_EQ(texts[0].line, 1u);
  EXPECT_EQ(texts[1].answers[0].ids, (Ids{5, 6, 7, 8}));
  EXPECT_EQ(texts[1].answers[0].mask, (std::vector<uint8_t>{1, 0, 1, 0}));
  EXPECT_EQ(texts[1].active(0), 1);  // Nothing predicts a text's first token.
  EXPECT_EQ(texts[1].line, 1u);
  EXPECT_EQ(texts[2].answers[0].ids, (Ids{13, 14, 15}));  // The last one, shorter.
  EXPECT_EQ(texts[2].answers[0].mask, (std::vector<uint8_t>{0, 0, 1}));
  EXPECT_EQ(texts[2].line, 3u);
  // Long enough for all of it: one text, every token in it.
  const auto one = wrap_answers(rows, 100);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].answers[0].ids, (Ids{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_TRUE(wrap_answers({}, 4).empty());
}

TEST(Answers, RefusesWhatCannotBeWrapped) {
  const auto refusal = [](const std::vector<AnswerGroup>& rows) -> std::string {
    try {
      (void)wrap_answers(rows, 4);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(refusal({{.answers = {{{1}, {}}, {{2}, {}}}, .line = 7}}).find("line 7"),
            std::string::npos);
  EXPECT_NE(refusal({{.answers = {{{1}, {}}}, .line = 1},
                     {.answers = {{{1}, {}}}, .weight = 2, .line = 8}})
                .find("line 8"),
            std::string::npos);
}

TEST(Answers, RefusesWhatCannotBePacked) {
  AnswerGroup none{.prompt = {1}}, empty{.prompt = {1}, .answers = {{{}, {}}}, .line = 9},
      mask{.prompt = {1}, .answers = {{{2, 3}, {1}}}};
  for (const AnswerGroup* bad : {&none, &empty, &mask}) {
    const AnswerGroup* groups[] = {bad};
    EXPECT_THROW((void)pack_answers(groups), Error);
  }
}

}  // namespace
}  // namespace temper
