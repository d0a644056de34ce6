// The reward trainer: data, arithmetic, and that nothing but the settings decides its bits.
#include "temper/trainer/reward_trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Ids = std::vector<int32_t>;

RewardModel tiny_reward(WeightDType dtype = WeightDType::kFloat32,
                        Trainable trainable = Trainable::kYes) {
  return RewardModel::from_language_model(tiny_model().string(), dtype, trainable);
}

/// Pairs by a rule: the side with more of "7" is preferred; prompts and sides of many lengths.
PreferenceData sevens(size_t count, uint64_t stream) {
  RngStream rng(5, RngPurpose::kTest, stream);
  const auto word = [&](int64_t sevens, int64_t others) {
    std::string out(static_cast<size_t>(sevens), '7');
    for (int64_t i = 0; i < others; ++i) {
      out.insert(out.begin() + static_cast<std::ptrdiff_t>(rng.next_below(out.size() + 1)),
                 static_cast<char>('a' + rng.next_below(6)));
    }
    return out;
  };
  PreferenceData data;
  data.source = "sevens";
  while (data.pairs.size() < count) {
    const auto few = static_cast<int64_t>(rng.next_below(3));
    PreferencePair p;
    p.prompt.text = word(0, 1 + static_cast<int64_t>(rng.next_below(9))) + ":";
    p.chosen.text = word(few + 2, static_cast<int64_t>(rng.next_below(5)));
    p.rejected.text = word(few, 1 + static_cast<int64_t>(rng.next_below(7)));
    p.margin = 0.25 * static_cast<double>(rng.next_below(3));
    p.line = data.pairs.size() + 1;
    data.pairs.push_back(std::move(p));
  }
  return data;
}

RewardTrainer::Parts parts_of(size_t pairs = 20, int64_t steps = 6) {
  RewardTrainer::Parts p;
  p.schedule = {.shape = "linear", .learning_rate = 0.01};
  p.data = tokenize_pairs(sevens(pairs, 1), ModelText(tiny_source()), 64);
  p.total_steps = steps;
  p.seed = 3;
  p.config.loss = {.center_coef = 0.01, .label_smoothing = 0.05};
  return p;
}

std::vector<std::vector<float>> weights_of(const RewardModel& model) {
  std::vector<std::vector<float>> out;
  for (const auto& p : model.backbone().parameters()) {
    out.emplace_back(p->data(), p->data() + p->elements());
  }
  out.emplace_back(model.head().weight().begin(), model.head().weight().end());
  return out;
}

// --- From pairs to tokens
// -----------------------------------------------------------------------------

Ids both(const TokenPair& p, const Ids& own) {
  Ids out = p.shared;
  out.insert(out.end(), own.begin(), own.end());
  return out;
}

TEST(TokenizePairs, TextsEndWithTheEndToken) {
  const ModelText text(tiny_source());
  const PreferenceData data = parse_preferences(
      "{\"prompt\": \"ab\", \"chosen\": \"c\", \"rejected\": \"d<|im_end|>\"}", "f", {});
  const TokenizedPairs t = tokenize_pairs(data, text, 10);
  ASSERT_EQ(t.pairs.size(), 1u);
  const Ids ab = text.tokenizer().encode("ab"), c = text.tokenizer().encode("c");
  EXPECT_EQ(t.pairs[0].shared, ab);
  EXPECT_EQ(t.pairs[0].chosen, (Ids{c[0], kEos}));
  EXPECT_EQ(t.pairs[0].rejected, (Ids{text.tokenizer().encode("d")[0], kEos})) << "not twice";
  EXPECT_EQ(t.longest, 4);
}

TEST(TokenizePairs, ConversationsGoThroughTheTemplate) {
  const ModelText text(tiny_source());
  const PreferenceData data = parse_preferences(
      "{\"prompt\": [{\"role\": \"user\", \"content\": \"hi\"}], \"chosen\": \"yo\", \"rejected\": "
      "\"no\"}",
      "f", {});
  const TokenizedPairs t = tokenize_pairs(data, text, 99);
  const auto whole = [&](const std::string& answer) {
    return text.encode_rendered("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n" + answer +
                                "<|im_end|>\n");
  };
  EXPECT_EQ(both(t.pairs[0], t.pairs[0].chosen), whole("yo"));
  EXPECT_EQ(both(t.pairs[0], t.pairs[0].rejected), whole("no"));
  EXPECT_EQ(t.pairs[0].chosen[0], text.tokenizer().encode("y")[0]) << "what both share comes once";

  ModelSource bare = tiny_source();
  bare.chat_template.clear();
  const std::string error = error_of([&] { (void)tokenize_pairs(data, ModelText(bare), 99); });
  EXPECT_NE(error.find("f:1"), std::string::npos) << error;
  EXPECT_NE(error.find("no chat template"), std::string::npos) << error;
}

TEST(TokenizePairs, LongAndEqualOnesAreLeftOutAndCounted) {
  const ModelText text(tiny_source());
  const PreferenceData data = parse_preferences(
      "{\"prompt\": \"\", \"chosen\": \"abcd\", \"rejected\": \"x\"}\n"
      "{\"prompt\": \"\", \"chosen\": \"abc\", \"rejected\": \"y\"}\n"
      "{\"prompt\": \"\", \"chosen\": \"x\", \"rejected\": \"xxxxxxxx\"}\n"
      "{\"prompt\": \"\", \"chosen\": \"x\", \"rejected\": \"x<|im_end|>\"}\n",
      "f", {});
  const TokenizedPairs t = tokenize_pairs(data, text, 4);
  ASSERT_EQ(t.pairs.size(), 1u);
  EXPECT_EQ(t.pairs[0].line, 2u);
  EXPECT_EQ(t.too_long, 2);
  EXPECT_EQ(t.equal, 1);
  const std::string error = error_of([&] { (void)tokenize_pairs(data, text, 1); });
  EXPECT_NE(error.find("data.max_length"), std::string::npos) << error;
  EXPECT_NE(error.find("no pair is left"), std::string::npos) << error;
}

TEST(TokenizePairs, TheHashKnowsIdsAndMargins) {
  const ModelText text(tiny_source());
  const auto hash = [&](const std::string& row) {
    return tokenize_pairs(parse_preferences(row, "f", {}), text, 99).hash;
  };
  const uint64_t plain = hash("{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}");
  EXPECT_EQ(plain,
            hash("{\"rejected\": \"b\", \"prompt\": \"p\", \"chosen\": \"a\", \"margin\": 0}"));
  EXPECT_NE(plain, hash("{\"prompt\": \"p\", \"chosen\": \"b\", \"rejected\": \"a\"}"));
  EXPECT_NE(plain,
            hash("{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\", \"margin\": 1}"));
}

// --- Arithmetic
// ---------------------------------------------------------------------------------------

TEST(RewardTrainer, AHeadOfZerosBeginsAtLogTwo) {
  RewardTrainer::Parts parts = parts_of();
  parts.config.loss = {};
  for (TokenPair& p : parts.data.pairs) p.margin = 0;
  RewardModel model = tiny_reward();
  RewardTrainer trainer(model, parts);
  const Metrics m = trainer.step();
  EXPECT_NEAR(m.at("loss"), std::log(2.0), 1e-15);
  EXPECT_EQ(m.at("accuracy"), 0) << "a tie is not right";
  EXPECT_EQ(m.at("max_reward"), 0);
  EXPECT_GT(m.at("grad_norm"), 0);
  double tokens = 0;  // The first eight pairs of epoch 0, both sides.
  PromptSampler order(parts.data.pairs.size(), parts.seed);
  for (const size_t i : order.next(8)) tokens += static_cast<double>(parts.data.pairs[i].tokens());
  EXPECT_EQ(m.at("num_tokens"), tokens);
  EXPECT_EQ(m.at("epoch"), 8.0 / 20.0);
}

TEST(RewardTrainer, ScoresAreReadAtTheLastTokenOfEachSide) {
  RewardModel model = tiny_reward();
  init_head(model.head(), 0.3, 1);
  const TokenizedPairs data = parts_of().data;
  const PairEvaluation e = evaluate_pairs(model, data.pairs, {}, 50);
  std::vector<Ids> texts;
  for (const TokenPair& p : data.pairs) {
    texts.push_back(both(p, p.chosen));
    texts.push_back(both(p, p.rejected));
  }
  EXPECT_EQ(e.rewards, model.score(texts)) << "bit for bit those of whole texts, one by one";
  double right = 0;
  for (size_t i = 0; i < e.rewards.size(); i += 2) right += e.rewards[i] > e.rewards[i + 1] ? 1 : 0;
  EXPECT_EQ(e.correct, static_cast<int64_t>(right));
  EXPECT_EQ(e.metrics.at("eval/accuracy"), right / static_cast<double>(e.count));
  EXPECT_GT(e.metrics.at("eval/calibration_error"), 0);
}

TEST(RewardTrainer, LearnsTheRuleOnHeldOutPairs) {
  RewardTrainer::Parts parts = parts_of(300, 60);
  RewardModel model = tiny_reward();
  RewardTrainer trainer(model, parts);
  const TokenizedPairs held_out = tokenize_pairs(sevens(100, 2), ModelText(tiny_source()), 64);
  const PairEvaluation before = trainer.evaluate(held_out.pairs);
  while (trainer.steps_done() < trainer.total_steps()) (void)trainer.step();
  const PairEvaluation after = trainer.evaluate(held_out.pairs);
  EXPECT_EQ(before.correct, 0);
  EXPECT_GE(after.correct, 90);
  EXPECT_LT(after.metrics.at("eval/loss"), before.metrics.at("eval/loss"));
  EXPECT_GT(after.metrics.at("eval/margin"), 0.5);
}

TEST(RewardTrainer, AFrozenBackboneStaysAsItIs) {
  RewardTrainer::Parts parts = parts_of();
  parts.config.freeze_backbone = true;
  RewardModel model = tiny_reward(WeightDType::kFloat32, Trainable::kNo);
  const auto before = weights_of(model);
  RewardTrainer trainer(model, parts);
  for (int i = 0; i < 3; ++i) (void)trainer.step();
  auto after = weights_of(model);
  EXPECT_NE(after.back(), before.back());
  after.back() = before.back();
  EXPECT_EQ(after, before);
  const std::string error = error_of([&] { RewardTrainer(model, parts_of()); });
  EXPECT_NE(error.find("freeze_backbone"), std::string::npos);
}

TEST(InitHead, IsNormalAndKeyed) {
  ScalarHead a(4000), b(4000), c(4000);
  init_head(a, 0.02, 1);
  init_head(b, 0.02, 1);
  init_head(c, 0.02, 2);
  const auto values = [](const ScalarHead& h) {
    return std::vector<float>(h.weight().begin(), h.weight().end());
  };
  EXPECT_EQ(values(a), values(b));
  EXPECT_NE(values(a), values(c));
  double sum = 0, square = 0;
  for (const float w : values(a)) {
    sum += double{w};
    square += double{w} * double{w};
  }
  EXPECT_NEAR(sum / 4000, 0, 5 * 0.02 / std::sqrt(4000));  // Five deviations.
  EXPECT_NEAR(std::sqrt(square / 4000), 0.02, 5 * 0.02 / std::sqrt(8000));
  init_head(a, 0, 1);
  EXPECT_EQ(values(a), std::vector<float>(4000, 0.0f));
}

// --- Bits
// ---------------------------------------------------------------------------------------------

struct Outcome {
  std::vector<std::map<std::string, uint64_t>> metrics;
  std::vector<std::vector<float>> weights;
  bool operator==(const Outcome&) const = default;
};

Outcome outcome_of(const std::vector<std::string>& settings, WeightDType dtype) {
  RewardTrainer::Parts parts = parts_of();
  for (const auto& s : settings) config_set(config_fields(parts.config), s);
  RewardModel model = tiny_reward(dtype);
  init_head(model.head(), 0.1, 1);
  RewardTrainer trainer(model, parts);
  Outcome out;
  for (int i = 0; i < 4; ++i) out.metrics.push_back(lasting(trainer.step()));
  out.weights = weights_of(model);
  return out;
}

TEST(RewardBits, MicroBatchesRecomputationAndThreadsChangeNone) {
  for (const WeightDType dtype : {WeightDType::kFloat32, WeightDType::kBfloat16}) {
    const Outcome whole = outcome_of({"micro_batch_tokens=100000"}, dtype);
    EXPECT_EQ(whole, outcome_of({"micro_batch_tokens=1"}, dtype)) << "8 x 1";
    EXPECT_EQ(whole, outcome_of({"micro_batch_tokens=60"}, dtype)) << "two or three at a time";
    EXPECT_EQ(whole, outcome_of({"gradient_checkpointing=true"}, dtype));
    set_num_threads(2);
    EXPECT_EQ(whole, outcome_of({"micro_batch_tokens=100000"}, dtype));
    set_num_threads(1);
    EXPECT_NE(whole, outcome_of({"pairs_per_step=7"}, dtype)) << "the comparison sees nothing";
  }
}

struct Case {
  std::string name;
  std::vector<std::string> settings;
  WeightDType dtype = WeightDType::kFloat32;
  Trainable trainable = Trainable::kYes;
};

class RewardResume : public testing::TestWithParam<Case> {};

TEST_P(RewardResume, ContinuesWithTheSameBits) {
  const TemporaryFolder folder;
  const Case& c = GetParam();
  RewardTrainer::Parts parts = parts_of();  // 48 pairs of 20: into a third epoch.
  for (const auto& s : c.settings) config_set(config_fields(parts.config), s);
  RewardModel model = tiny_reward(c.dtype, c.trainable);
  RewardTrainer whole(model, parts);
  for (int i = 0; i < 3; ++i) (void)whole.step();
  whole.save(folder.path());

  RewardModel restored =
      RewardModel::load((folder.path() / "model").string(), c.dtype, c.trainable);
  EXPECT_EQ(weights_of(restored), weights_of(model));
  RewardTrainer resumed(restored, parts);
  resumed.load(folder.path());
  EXPECT_EQ(resumed.steps_done(), 3);
  for (int i = 3; i < 6; ++i) EXPECT_EQ(lasting(whole.step()), lasting(resumed.step())) << i;
  EXPECT_EQ(weights_of(restored), weights_of(model));
}

INSTANTIATE_TEST_SUITE_P(
    Settings, RewardResume,
    testing::Values(Case{"plain", {}}, Case{"bf16", {}, WeightDType::kBfloat16},
                    Case{"frozen", {"freeze_backbone=true"}, WeightDType::kFloat32, Trainable::kNo},
                    Case{"in_order", {"shuffle=false", "loss.center_coef=0.1"}}),
    [](const auto& test) { return test.param.name; });

TEST(RewardState, WhatDoesNotFitIsRefused) {
  const TemporaryFolder folder;
  RewardModel model = tiny_reward();
  RewardTrainer(model, parts_of()).save(folder.path());
  const auto error = [&](auto change) {
    RewardTrainer::Parts parts = parts_of();
    change(parts);
    RewardTrainer t(model, parts);
    return error_of([&] { t.load(folder.path()); });
  };
  using P = RewardTrainer::Parts;
  EXPECT_EQ(error([](P&) {}), "");
  EXPECT_NE(error([](P& p) { p.seed = 4; }).find("seed"), std::string::npos);
  EXPECT_NE(error([](P& p) { p.data.hash++; }).find("training pairs"), std::string::npos);
}

// --- Faults
// -------------------------------------------------------------------------------------------

TEST(RewardFaults, AnInfiniteScoreNamesItsLineAndCostsNothing) {
  RewardTrainer::Parts parts = parts_of();
  parts.config.shuffle = false;
  RewardModel model = tiny_reward(), twin = tiny_reward();
  RewardTrainer trainer(model, parts), other(twin, parts);
  std::vector<float> head(32, std::numeric_limits<float>::infinity());
  model.head().set(head);
  const std::string error = error_of([&] { (void)trainer.step(); });
  EXPECT_NE(error.find("line 1 of sevens"), std::string::npos) << error;
  EXPECT_EQ(trainer.steps_done(), 0);
  std::fill(head.begin(), head.end(), 0.0f);
  model.head().set(head);
  EXPECT_EQ(lasting(trainer.step()), lasting(other.step())) << "the same pairs, no old gradient";
  EXPECT_EQ(weights_of(model), weights_of(twin));
}

TEST(RewardFaults, SettingsAreNamed) {
  const auto error = [](const std::string& setting) {
    return error_of([&] {
      RewardTrainingConfig c;
      config_set(config_fields(c), setting);
      c.validate();
    });
  };
  for (const char* bad : {"pairs_per_step=0", "micro_batch_tokens=0", "head_init_std=-1",
                          "loss.center_coef=-1", "loss.label_smoothing=0.5"}) {
    const std::string key = std::string(bad).substr(0, std::string(bad).find('='));
    EXPECT_NE(error(bad).find("reward." + key), std::string::npos) << bad << ": " << error(bad);
  }
}

}  // namespace
}  // namespace temper::testing_trainer
