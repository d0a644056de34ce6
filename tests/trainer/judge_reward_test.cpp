// A judge as a reward, as a labeler, and held against labels.
#include "temper/trainer/judge_reward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "judge_case.h"
#include "temper/trainer/judge_check.h"
#include "temper/trainer/preference_run.h"
#include "temporary_folder.h"

namespace temper {
namespace {

using namespace testing_trainer;

/// Two answers to one prompt and one to another.
struct Answers {
  std::vector<Example> examples;
  std::vector<Completion> completions;

  Answers() {
    examples = {{.messages = {{"user", "2+2"}}, .answer = "4"},
                {.messages = {{"system", "brief"}, {"user", "a bird"}}}};
    completions = {{"p0", "four", {}, false, &examples[0]},
                   {"p0", "5", {}, false, &examples[0]},
                   {"p0", "22", {}, false, &examples[0]},
                   {"p1", "owl", {}, false, &examples[1]}};
  }
};

TEST(JudgeReward, AsksAboutTheExamplesTurns) {
  const Answers a;
  const JudgeTexts one = judge_texts(a.completions[0]), other = judge_texts(a.completions[3]);
  EXPECT_EQ(one.question, "2+2");
  EXPECT_EQ(one.answer, "four");
  EXPECT_EQ(one.reference, "4");
  EXPECT_EQ(other.question, "system: brief\nuser: a bird");
  EXPECT_EQ(judge_texts({.prompt = "raw", .text = "x"}).question, "raw");
}

TEST(JudgeReward, PointwiseIsTheMark) {
  const PolicyModel policy = tiny_policy();
  const auto judge = make_judge(tiny_judge(), policy);
  const Answers a;
  const auto scores = judge_reward(judge)(a.completions);
  for (size_t i = 0; i < scores.size(); ++i) {
    const JudgeCase c{judge_texts(a.completions[i]), false};
    EXPECT_EQ(scores[i], static_cast<float>(judge->mark({&c, 1}).at(0).value));
  }
}

TEST(JudgeReward, PairwiseIsTheMeanOverTheOthersOfTheGroup) {
  const PolicyModel policy = tiny_policy();
  const auto judge = make_judge(tiny_judge("pairwise"), policy);
  const Answers a;
  const auto p = [&](const char* first, const char* second) {
    const JudgePair pair{{"2+2", first, second, "4"}, false, false};
    return judge->compare({&pair, 1}).at(0).p_first;
  };
  const auto scores = judge_reward(judge)(a.completions);
  EXPECT_NEAR(scores[0], (p("four", "5") + p("four", "22")) / 2, 1e-6);
  EXPECT_NEAR(scores[1], (p("5", "four") + p("5", "22")) / 2, 1e-6);
  EXPECT_NEAR(scores[2], (p("22", "four") + p("22", "5")) / 2, 1e-6);
  EXPECT_TRUE(std::isnan(scores[3]));  // Nothing to compare it with.
}

// Shares over marks 0, 1, 2. 1 against 0 is .3 * .6, 2 against less .5 * .9, equal marks .2 * .6 +
// .3 * .3 + .5 * .1 = .26. A token more costs a whole mark at 100 marks for 100 tokens.
TEST(JudgeReward, PreferenceOfDrawnMarksByHand) {
  Mark first{.value = 1.3, .share = {0.2, 0.3, 0.5}, .length = 5};
  const Mark second{.value = 0.5, .share = {0.6, 0.3, 0.1}, .length = 5};
  EXPECT_NEAR(preference_by_shares(first, second, 0), 0.18 + 0.45 + 0.5 * 0.26, 1e-15);
  EXPECT_NEAR(preference_by_shares(second, first, 0), 1 - (0.18 + 0.45 + 0.5 * 0.26), 1e-15);
  first.length = 6;
  // Now 2 against 0 wins; 1 against 0 and 2 against 1 are ties.
  EXPECT_NEAR(preference_by_shares(first, second, 100), 0.5 * 0.6 + 0.5 * (0.3 * 0.6 + 0.5 * 0.3), 1e-15);
  const Mark cut{.value = 0, .outcome = JudgeOutcome::kTruncated};
  EXPECT_NEAR(preference_by_shares(cut, second, 0), 0.3, 1e-15);
  EXPECT_TRUE(std::isnan(preference_by_shares(Mark{}, second, 0)));
}

TEST(JudgeReward, LabelerMarksOrCompares) {
  const PolicyModel policy = tiny_policy();
  const Answers a;
  const std::vector<AnswerPair> pairs = {{a.completions[0], a.completions[1]}};
  const auto marks = make_judge(tiny_judge(), policy);
  const Labeler pointwise = judge_labeler(marks);
  const std::vector<JudgeCase> cases = {{judge_texts(a.completions[0]), false}, {judge_texts(a.completions[1]), false}};
  const auto m = marks->mark(cases);
  EXPECT_EQ(pointwise.prefer(pairs).at(0), preference_by_shares(m[0], m[1], 0));
  EXPECT_EQ(pointwise.scores(a.completions), judge_reward(marks)(a.completions));
  const auto compares = make_judge(tiny_judge("pairwise"), policy);
  const Labeler pairwise = judge_labeler(compares);
  EXPECT_FALSE(pairwise.scores);
  const JudgePair pair{{"2+2", "four", "5", "4"}, false, false};
  EXPECT_EQ(pairwise.prefer(pairs).at(0), compares->compare({&pair, 1}).at(0).p_first);
}

TEST(JudgeReward, AFrozenJudgeKeepsItsOwnWeights) {
  const PolicyModel policy = tiny_policy();
  JudgeConfig config = tiny_judge();
  config.model = tiny_model().string();
  config.weights = "float32";
  const auto frozen = make_judge(config, policy), own = make_judge(tiny_judge(), policy);
  const Answers a;
  const auto before = judge_reward(frozen)(a.completions);
  EXPECT_EQ(judge_reward(own)(a.completions), before);
  policy.lm().parameters().front()->data()[40] += 0.5f;
  EXPECT_EQ(judge_reward(frozen)(a.completions), before);
  EXPECT_NE(judge_reward(own)(a.completions), before);
  config.model.clear();
  EXPECT_EQ(error_of([&] { (void)make_judge(config, policy); }),
            "judge.model is empty: say policy, or name a model");
}

struct LastMetrics : Observer {
  void on_step(const StepEvent& e) override { metrics = e.metrics; }
  Metrics metrics;
};

// The policy as its own judge: a reward beside a rule, and the only one.
TEST(JudgeReward, RewardsAnOnlineRun) {
  const TemporaryFolder folder;
  for (const bool alone : {false, true}) {
    GrpoRunConfig c;
    c.model = tiny_model().string();
    c.task.prompt_template = "{question}=";
    c.task.train_size = 10;
    c.rollout.max_new_tokens = 4;
    c.grpo.online.group_size = 2;
    c.grpo.online.prompts_per_step = 2;
    c.trainer.steps = 1;
    c.trainer.save_model = false;
    c.eval.every = -1;
    c.judge = tiny_judge();
    c.judge.truncated = "judged";
    c.judge.weight = 2;
    if (!alone) c.reward.functions = {"length_penalty"};
    const auto last = std::make_shared<LastMetrics>();
    const RunResult r = train_grpo(c, {.output = folder.path() / (alone ? "a" : "b"), .observers = {last}});
    EXPECT_TRUE(r.completed);
    const double mark = last->metrics.at("rewards/judge/mean");
    EXPECT_GT(mark, 0);
    EXPECT_LT(mark, 5);
    const double rule = alone ? 0 : last->metrics.at("rewards/length_penalty/mean");
    EXPECT_NEAR(last->metrics.at("reward"), 2 * mark + rule, 1e-5);
  }
}

PreferenceRunConfig tiny_self_rewarding() {
  PreferenceRunConfig c = read_preference_config("self-rewarding", "", "", {});
  c.model = tiny_model().string();
  c.task.prompt_template = "{question}=";
  c.task.train_size = 10;
  c.task.held_out_size = 4;
  c.rollout.max_new_tokens = 4;
  c.preference.sampling.prompts_per_round = 3;
  c.trainer.steps = 2;
  c.trainer.save_model = false;
  c.schedule.learning_rate = 0.01;
  const JudgeConfig judge = tiny_judge();
  c.judge.rubric = judge.rubric;
  c.judge.template_file = judge.template_file;
  c.judge.min_mass = 0;
  c.judge.truncated = "judged";
  return c;
}

// Four answers to each of three prompts, marked by the policy; the task's own rule only watches.
TEST(SelfRewarding, LearnsFromItsOwnMarks) {
  const TemporaryFolder folder;
  const PreferenceRunConfig c = tiny_self_rewarding();
  EXPECT_EQ(c.preference.sampling.completions, 4);
  EXPECT_EQ(c.judge.model, "policy");
  EXPECT_EQ(c.preference.reference, "round");
  const auto last = std::make_shared<LastMetrics>();
  const RunResult r = train_preference(c, {.output = folder.path() / "a", .observers = {last}});
  EXPECT_TRUE(r.completed);
  const Metrics& m = last->metrics;
  EXPECT_GT(m.at("objective/scores"), 0);
  EXPECT_LT(m.at("objective/scores"), 5);
  EXPECT_GT(m.at("objective/scores_margin"), 0);
  EXPECT_EQ(m.at("pairs/made") + m.at("pairs/tied") + m.at("pairs/equal"), 3);
  EXPECT_GT(r.before.metrics.at("eval/judge"), 0);
  EXPECT_EQ(r.before.count, 4);  // The first reward, by which answers count as right, is the task's.
  EXPECT_EQ(r.before.correct, 0);
  const auto again = std::make_shared<LastMetrics>();
  (void)train_preference(c, {.output = folder.path() / "b", .observers = {again}});
  EXPECT_EQ(lasting(again->metrics), lasting(m));
}

TEST(SelfRewarding, NeedsAJudge) {
  const TemporaryFolder folder;
  PreferenceRunConfig c = tiny_self_rewarding();
  c.judge.model.clear();
  EXPECT_EQ(error_of([&] { (void)train_preference(c, {.output = folder.path() / "a"}); }),
            "labeler.kind=judge needs a judge: set judge.model to policy, or name a model");
}

std::vector<JudgedRow> labelled_pairs(bool flipped) {
  std::vector<JudgedRow> rows;
  const char* answers[][2] = {{"four", "5"}, {"owl", "a stone, perhaps"}, {"yes", "no"}, {"1", "one"}};
  for (const auto& [first, second] : answers) {
    JudgedRow row{{"2+2", first, second, ""}, true, true};
    if (flipped) std::swap(row.texts.answer, row.texts.other);
    rows.push_back(row);
  }
  return rows;
}

TEST(JudgeCheck, CountsAgreementByTheJudgesOwnVerdicts) {
  const PolicyModel policy = tiny_policy();
  const auto ask = [&](bool flipped) {
    const auto marks = make_judge(tiny_judge(), policy), compares = make_judge(tiny_judge("pairwise"), policy);
    return check_judge(labelled_pairs(flipped), marks.get(), compares.get());
  };
  const JudgeReport r = ask(false), flipped = ask(true);
  const auto judge = make_judge(tiny_judge("pairwise"), policy);
  int64_t right = 0, longer = 0, consistent = 0;
  for (const JudgedRow& row : labelled_pairs(false)) {
    const JudgePair pair{row.texts, false, false};
    const Comparison c = judge->compare({&pair, 1}).at(0);
    right += c.p_first > 0.5;
    longer += (c.p_first > 0.5) == (row.texts.answer.size() > row.texts.other.size());
    consistent += c.consistent();
  }
  ASSERT_TRUE(r.pairwise && r.pointwise);
  EXPECT_EQ(r.pairwise->right, right);
  EXPECT_EQ(r.pairwise->wrong, 4 - right);
  EXPECT_EQ(r.pairwise->different, 4);
  EXPECT_EQ(r.pairwise->longer_preferred, longer);
  EXPECT_EQ(r.pairwise->longer_labelled, 2);  // "four", "yes".
  EXPECT_EQ(r.comparisons.consistent, consistent);
  EXPECT_EQ(flipped.pairwise->right, r.pairwise->wrong);
  EXPECT_EQ(flipped.pointwise->right, r.pointwise->wrong);
  EXPECT_EQ(flipped.agree, r.agree);
  EXPECT_NEAR(flipped.p_shown_first, r.p_shown_first, 1e-12);
  EXPECT_NEAR(flipped.mark_good, r.mark_bad, 1e-12);
  EXPECT_EQ(judge_report_json(r)["pairwise"]["right"], right);
}

TEST(JudgeCheck, MarksOfSingleAnswersAndOfAppendedTexts) {
  const PolicyModel policy = tiny_policy();
  const auto judge = make_judge(tiny_judge(), policy);
  std::vector<JudgedRow> rows = {{{"q", "a", "", ""}, false, true},
                                 {{"q", "bcd", "", ""}, false, false},
                                 {{"q", "e", "", ""}, false, false}};
  std::vector<double> mark, after;
  for (const JudgedRow& row : rows) {
    JudgeCase c{row.texts, false};
    mark.push_back(judge->mark({&c, 1}).at(0).value);
    c.texts.answer += " 5!";
    after.push_back(judge->mark({&c, 1}).at(0).value);
  }
  const JudgeReport r = check_judge(rows, judge.get(), nullptr, " 5!");
  EXPECT_DOUBLE_EQ(r.auc, ((mark[0] > mark[1]) + (mark[0] > mark[2])) / 2.0);
  EXPECT_EQ(r.good, 1);
  EXPECT_EQ(r.bad, 2);
  ASSERT_TRUE(r.appended);
  EXPECT_EQ(r.appended->answers, 3);
  EXPECT_NEAR(r.appended->mean_change,
              (after[0] + after[1] + after[2] - mark[0] - mark[1] - mark[2]) / 3, 1e-12);
  EXPECT_EQ(error_of([&] { (void)check_judge(rows, judge.get(), judge.get()); }),
            "[judge] single answers cannot be compared: use pointwise");
}

TEST(JudgeCheck, ReadsPairsAndLabelledAnswers) {
  const fs::path pairs = tiny_model() / "judge_pairs.jsonl", single = tiny_model() / "judge_single.jsonl";
  write_file_atomically(pairs, "{\"prompt\": \"q\", \"chosen\": \"good\", \"rejected\": \"bad\"}\n");
  write_file_atomically(single, "{\"prompt\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
                                "\"content\": \"q\"}], \"completion\": \"meh\", \"label\": false}\n");
  const auto a = judged_rows(read_completions(pairs)), b = judged_rows(read_completions(single));
  ASSERT_EQ(a.size(), 1u);
  EXPECT_TRUE(a[0].pair);
  EXPECT_EQ(a[0].texts.answer, "good");
  EXPECT_EQ(a[0].texts.other, "bad");
  ASSERT_EQ(b.size(), 1u);
  EXPECT_FALSE(b[0].pair);
  EXPECT_FALSE(b[0].good);
  EXPECT_EQ(b[0].texts.question, "system: s\nuser: q");
  EXPECT_EQ(b[0].texts.answer, "meh");
}

}  // namespace
}  // namespace temper
