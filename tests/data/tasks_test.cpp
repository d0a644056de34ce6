#include "temper/data/tasks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "data_test_util.h"
#include "temper/core/config.h"

namespace temper {
namespace {

TaskConfig arithmetic(int64_t level) {
  TaskConfig config;
  config.level = level;
  return config;
}

std::set<uint64_t> ids(const Dataset& data) {
  std::set<uint64_t> out;
  for (const auto& e : data.examples) out.insert(e.id);
  return out;
}

/// An evaluator of its own for "a op b [op c]" and "(a + b) * c", left to right.
int evaluate(std::string text) {
  std::erase_if(text, [](char c) { return c == '(' || c == ')' || c == ' '; });
  size_t at = 0;
  const auto number = [&] {
    int n = 0;
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at]))) {
      n = n * 10 + (text[at++] - '0');
    }
    return n;
  };
  int result = number();
  while (at < text.size()) {
    const char op = text[at++];
    const int b = number();
    result = op == '+' ? result + b : op == '-' ? result - b : result * b;
  }
  return result;
}

// Sizes by hand: level 2 is 21*21 sums and 21*22/2 differences; level 3 is 90*90 and 90*91/2;
// level 4 adds 11*98 products; level 5: five kinds of 12^3 less the negative ones.
TEST(Arithmetic, LevelsHaveTheStatedSizesAndRightAnswers) {
  const std::vector<size_t> sizes = {100, 672, 12195, 13273};
  for (int64_t level = 1; level <= 5; ++level) {
    std::set<std::string> seen;
    for (const auto& kind : arithmetic_questions(level)) {
      for (const auto& q : kind) {
        ASSERT_EQ(q.answer, std::to_string(evaluate(q.text))) << q.text;
        EXPECT_NE(q.answer.front(), '-') << q.text;
        EXPECT_TRUE(seen.insert(q.text).second) << q.text << " twice";
      }
    }
    if (level <= 4) {
      EXPECT_EQ(seen.size(), sizes[static_cast<size_t>(level - 1)]);
    } else {
      EXPECT_GT(seen.size(), 7000u);
    }
  }
  EXPECT_EQ(error_of([] { (void)arithmetic_questions(6); }),
            "[arithmetic] level must be in 1..5, got 6");
}

TEST(Arithmetic, TrainAndHeldOutNeverOverlapAndHaveTheirSizes) {
  for (int64_t level = 1; level <= 5; ++level) {
    const Task task = make_task(arithmetic(level));
    EXPECT_EQ(task.held_out.examples.size(), level == 1 ? 20u : 200u);
    const auto train = ids(task.train);
    const auto held_out = ids(task.held_out);
    EXPECT_EQ(train.size(), task.train.examples.size()) << "prompts must be distinct";
    EXPECT_EQ(held_out.size(), task.held_out.examples.size());
    for (const uint64_t id : held_out) EXPECT_FALSE(train.contains(id));
    EXPECT_EQ(task.default_rewards, std::vector<std::string>{"numeric_answer"});
  }
  EXPECT_EQ(make_task(arithmetic(1)).train.examples.size(), 80u);
  EXPECT_EQ(make_task(arithmetic(2)).train.examples.size(), 472u);
  EXPECT_EQ(make_task(arithmetic(3)).train.examples.size(), 10000u);
}

TEST(Arithmetic, SameConfigSameRowsAndSeedsDiffer) {
  const Task a = make_task(arithmetic(3));
  const Task b = make_task(arithmetic(3));
  EXPECT_EQ(a.train.content_hash, b.train.content_hash);
  ASSERT_EQ(a.train.examples.size(), b.train.examples.size());
  for (size_t i = 0; i < a.train.examples.size(); ++i) {
    ASSERT_EQ(a.train.examples[i].messages, b.train.examples[i].messages);
  }
  TaskConfig other = arithmetic(3);
  other.seed = 43;
  EXPECT_NE(ids(make_task(other).held_out), ids(a.held_out));
  EXPECT_NE(make_task(other).train.content_hash, a.train.content_hash);
}

TEST(Arithmetic, LargerSetsContainSmallerOnes) {
  TaskConfig config = arithmetic(3);
  config.train_size = 100;
  const Task small = make_task(config);
  EXPECT_EQ(small.train.examples.size(), 100u);
  config.train_size = 500;
  config.held_out_size = 300;
  const Task large = make_task(config);
  const auto held_out = ids(large.held_out);
  EXPECT_EQ(held_out.size(), 300u);
  for (const uint64_t id : ids(small.held_out)) EXPECT_TRUE(held_out.contains(id));
}

TEST(Arithmetic, KindsAreBalanced) {
  TaskConfig config = arithmetic(4);
  config.train_size = 300;
  int sums = 0;
  int products = 0;
  for (const auto& e : make_task(config).train.examples) {
    sums += e.messages[0].content.find(" + ") != std::string::npos;
    products += e.messages[0].content.find(" * ") != std::string::npos;
  }
  EXPECT_NEAR(sums, 100, 15);
  EXPECT_NEAR(products, 100, 15);
}

TEST(Arithmetic, PhrasingCanBeChosen) {
  TaskConfig config = arithmetic(1);
  const Example chat = make_task(config).train.examples.at(0);
  ASSERT_EQ(chat.messages.size(), 1u);
  EXPECT_EQ(chat.messages[0].role, "user");
  EXPECT_TRUE(chat.messages[0].content.starts_with("What is "));
  EXPECT_TRUE(chat.messages[0].content.ends_with("? Reply with the number only."));
  EXPECT_EQ(chat.id, prompt_id(chat));

  config.system_prompt = "Be brief.";
  config.prompt_template = "{question} =";
  const Example system = make_task(config).train.examples.at(0);
  ASSERT_EQ(system.messages.size(), 2u);
  EXPECT_EQ(system.messages[0], (ChatMessage{"system", "Be brief."}));
  EXPECT_EQ(system.answer, chat.answer) << "the phrasing does not change the choice";

  config.system_prompt = "";
  config.form = "text";
  const Example text = make_task(config).train.examples.at(0);
  EXPECT_TRUE(text.messages.empty());
  EXPECT_EQ(text.prompt, system.messages[1].content);
  EXPECT_TRUE(text.prompt.ends_with(" ="));
}

TEST(Arithmetic, ImpossibleSizesAndTemplatesAreRefused) {
  TaskConfig config = arithmetic(2);
  config.train_size = 500;
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[arithmetic] level 2 has 672 different questions, too few for 500 training and 200 "
            "held-out prompts: raise the level or lower train_size or held_out_size");
  config.train_size = -1;
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[arithmetic] train_size and held_out_size must not be negative, got -1 and 0");
  config = arithmetic(0);
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[arithmetic] level must be in 1..5, got 0");
  config = arithmetic(1);
  for (const char* bad : {"no slot", "{question} {question}"}) {
    config.prompt_template = bad;
    EXPECT_EQ(error_of([&] { (void)make_task(config); }),
              std::string("[task] prompt_template must hold {question} exactly once, got \"") +
                  bad + "\"");
  }
  config = arithmetic(1);
  config.form = "text";
  config.system_prompt = "s";
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[task] system_prompt needs prompts in chat form: set form=chat");
  config.form = "chatty";
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[task] form must be auto, chat or text, got \"chatty\"");
}

TEST(Tasks, TableAndUnknownNames) {
  TaskConfig config;
  for (const auto& info : tasks()) EXPECT_FALSE(info.doc.empty()) << info.name;
  config.name = "arithmatic";
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[task] unknown task \"arithmatic\"; did you mean \"arithmetic\"? Tasks: arithmetic, "
            "gsm8k, jsonl");
  EXPECT_LE(config_fields(config).size() - config_fields(config.read).size() + 1, 15u);
  config_set(config_fields(config), "read.prompt_key=q");
  EXPECT_EQ(config.read.prompt_key, "q");
}

std::string rows(int count, const std::string& answer) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += concat("{\"question\": \"q", i, "\", \"answer\": \"", answer, "\"}\n");
  }
  return text;
}

TEST(Tasks, Gsm8kPhrasesBothPartsAndKeepsTheSplitUnderAnotherTemplate) {
  const ScratchFile file("g.jsonl", rows(400, "so\\n#### 4"));
  TaskConfig config;
  config.name = "gsm8k";
  config.path = file.path().string();
  config.held_out_fraction = 0.25;
  const Task task = make_task(config);
  EXPECT_EQ(task.train.examples.size() + task.held_out.examples.size(), 400u);
  EXPECT_EQ(task.default_rewards, std::vector<std::string>{"numeric_answer"});
  const Example& row = task.held_out.examples.at(0);
  ASSERT_EQ(row.messages.size(), 1u);
  EXPECT_TRUE(row.messages[0].content.starts_with("q"));
  EXPECT_NE(row.messages[0].content.find("#### number"), std::string::npos);
  EXPECT_EQ(row.answer, "so\n#### 4");

  config.prompt_template = "Q: {question}";
  config.form = "text";
  const Task other = make_task(config);
  ASSERT_EQ(other.held_out.examples.size(), task.held_out.examples.size());
  const std::string question =
      row.messages[0].content.substr(0, row.messages[0].content.find('\n'));
  EXPECT_EQ(other.held_out.examples[0].prompt, "Q: " + question);

  config.train_size = 100;
  EXPECT_EQ(make_task(config).train.examples.size(), 100u);
  config.train_size = 400;
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            concat("[task] ", config.path, " leaves ", task.train.examples.size(),
                   " training rows, train_size asks for 400"));
}

TEST(Tasks, FileTasksRefuseWhatTheyCannotUse) {
  TaskConfig config;
  config.name = "gsm8k";
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[task] the task \"gsm8k\" reads a file: set data.path to a JSON Lines file");
  const ScratchFile file("g.jsonl", rows(3, "4"));
  config.path = file.path().string();
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[task gsm8k] " + config.path +
                ": row 1 is not in GSM8K form: expected a question and an answer that ends in "
                "\"#### number\"");
  config.held_out_fraction = 1;
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[task] held_out_fraction must be in [0, 1), got 1");
  config.held_out_fraction = 0;
  config.held_out_size = 5;
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[task] the task \"gsm8k\" holds prompts out by held_out_fraction; held_out_size is "
            "for generated tasks");
}

TEST(Tasks, JsonlKeepsTheFormOfTheFile) {
  const ScratchFile file("p.jsonl",
                         "{\"prompt\": \"plain\", \"answer\": \"yes\"}\n"
                         "{\"prompt\": [{\"role\": \"user\", \"content\": \"chat\"}]}\n");
  TaskConfig config;
  config.name = "jsonl";
  config.path = file.path().string();
  config.held_out_fraction = 0;
  const Task task = make_task(config);
  ASSERT_EQ(task.train.examples.size(), 2u);
  EXPECT_EQ(task.train.examples[0].prompt, "plain");
  EXPECT_EQ(task.train.examples[1].messages[0].content, "chat");
  EXPECT_EQ(task.default_rewards, std::vector<std::string>{"exact_match"});
  EXPECT_EQ(task.train.source, config.path);

  config.form = "chat";
  EXPECT_EQ(make_task(config).train.examples[0].messages,
            (std::vector<ChatMessage>{{"user", "plain"}}));
  config.prompt_template = "{question}!";
  EXPECT_EQ(error_of([&] { (void)make_task(config); }),
            "[task jsonl] " + config.path +
                " holds conversations: prompt_template and form=text are for plain prompts");

  const ScratchFile bare("b.jsonl", "{\"prompt\": \"x\"}\n");
  config = {};
  config.name = "jsonl";
  config.held_out_fraction = 0;
  config.path = bare.path().string();
  EXPECT_TRUE(make_task(config).default_rewards.empty());
}

}  // namespace
}  // namespace temper
