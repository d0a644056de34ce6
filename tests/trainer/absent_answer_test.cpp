// The limit of given pairs, and the way past it. Answers are two letters of seven; the data has the
// first four only, so its best answer, dd, is half as good as the best there is, gg. A loss over
// these pairs reweighs what it was shown; a policy that is judged on what it says finds the rest.
#include <gtest/gtest.h>

#include <fstream>

#include "preference_util.h"
#include "temper/core/file.h"
#include "temper/trainer/answer_probe.h"
#include "temper/trainer/offline_run.h"
#include "temper/trainer/preference_run.h"
#include "temper/trainer/run_folder.h"
#include "temporary_folder.h"

namespace temper::testing_trainer {
namespace {

constexpr int32_t kA = 5;         ///< Ids 5 .. 11 are the letters a .. g.
constexpr int32_t kLetters = 7;
constexpr int32_t kInData = 4;
constexpr int32_t kIds = kA + kLetters;
constexpr int64_t kSteps = 250;
constexpr uint64_t kSeeds = 5;
const std::vector<int32_t> kPrompt{3, 4};  ///< "x="

ModelSource letters_source() {
  ModelSource s = tiny_source();
  s.config.vocab_size = kIds;
  nlohmann::json vocab = {{"<|im_start|>", 0}, {"<|im_end|>", kEos}, {"\n", 2}, {"x", 3}, {"=", 4}};
  for (int32_t i = 0; i < kLetters; ++i) {
    vocab[std::string(1, static_cast<char>('a' + i))] = kA + i;
  }
  auto json = nlohmann::json::parse(s.tokenizer.tokenizer_json);
  json["model"]["vocab"] = vocab;
  s.tokenizer.tokenizer_json = json.dump();
  return s;
}

/// The tiny model over these twelve ids, made once.
const fs::path& letters_model() {
  struct Folder {
    fs::path path = fs::path(testing::TempDir()) / concat("temper_letters_", getpid());
    Folder() {
      (void)tiny_model();  // One thread from here on.
      auto tensors = tiny_tensors();
      tensors[0].shape[0] = kIds;
      write_hf_folder(path, letters_source(), tensors, {});
    }
    ~Folder() {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  };
  static const Folder folder;
  return folder.path;
}

PolicyModel letters_policy() {
  return PolicyModel::load(letters_model().string(), WeightDType::kFloat32);
}

/// A letter is worth its place, a = 0 ... g = 1/2; anything else nothing.
float value_of(int32_t id) {
  return id < kA ? 0.0f : static_cast<float>(id - kA) / (2 * (kLetters - 1));
}
float score_of(std::span<const int32_t> ids) {
  return ids.size() < 2 ? 0 : value_of(ids[0]) + value_of(ids[1]);
}

NamedReward letters_reward() {
  return {"letters", per_completion([](const Completion& c) { return score_of(c.ids); })};
}

Dataset letter_prompts() {
  Dataset out;
  for (uint64_t i = 0; i < 8; ++i) out.examples.push_back({.prompt = "x=", .id = i});
  return out;
}

/// Pairs of answers over the first letters, judged by the same score.
TokenizedAnswers letter_pairs(uint64_t seed) {
  RngStream rng(seed, RngPurpose::kTest, 4);
  const auto letter = [&] { return kA + static_cast<int32_t>(rng.next_below(kInData)); };
  TokenizedAnswers out;
  while (out.groups.size() < 256) {
    std::vector<int32_t> a{letter(), letter()}, b{letter(), letter()};
    if (score_of(a) == score_of(b)) continue;
    if (score_of(a) < score_of(b)) std::swap(a, b);
    out.groups.push_back({.prompt = kPrompt, .answers = {{a, {}}, {b, {}}}});
  }
  return out;
}

struct Found {
  double best = 0;          ///< P(gg)
  double best_in_data = 0;  ///< P(dd)
  double score = 0;         ///< Expected, over all answers.

  [[nodiscard]] std::string words() const {
    return concat("P(gg) ", best, ", P(dd) ", best_in_data, ", mean score ", score);
  }
};

/// Exact: every answer's probability, but for those that end at once and are worth nothing.
Found found_by(PolicyModel& policy) {
  std::vector<AnswerGroup> rows;
  for (int32_t first = 0; first < kIds; ++first) {
    for (int32_t second = 0; second < kIds && first != kEos; ++second) {
      rows.push_back({.prompt = kPrompt, .answers = {{{first, second}, {}}}});
    }
  }
  const auto p = AnswerProbe(rows, 1).probabilities(policy.lm());
  Found out;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& ids = rows[i].answers[0].ids;
    out.score += p[i] * double{score_of(ids)};
    if (ids == std::vector<int32_t>(2, kA + kLetters - 1)) out.best = p[i];
    if (ids == std::vector<int32_t>(2, kA + kInData - 1)) out.best_in_data = p[i];
  }
  return out;
}

Found offline_dpo(uint64_t seed) {
  PolicyModel policy = letters_policy();
  OfflineLoss loss("dpo");
  OfflineTrainer::Parts p;
  p.config.rows_per_step = 32;
  p.objective = loss.build();
  p.needs = loss.needs();
  p.data = letter_pairs(seed);
  p.schedule = {.shape = "constant", .learning_rate = 0.003};
  p.total_steps = kSteps;
  p.seed = seed;
  OfflineTrainer trainer(policy, std::move(p));
  trainer.cache_reference(policy.lm(), nullptr);
  Metrics last;
  while (trainer.steps_done() < kSteps) last = trainer.step();
  EXPECT_EQ(last.at("rewards/accuracies"), 1) << seed << ": the pairs themselves are learned";
  return found_by(policy);
}

struct Online {
  std::string loss;
  std::vector<std::string> settings;
  std::string reference;
  int64_t prompts = 0;
  int64_t completions = 0;
};

const Online kOnlineDpo{"dpo", {}, "initial", 32, 2};
const Online kIterativeDpo{"dpo", {"loss_type=sigmoid,sft"}, "round", 64, 4};
// With the usual beta of 0.1 XPO grows certain of the first answer that beats the reference's.
const Online kXpo{"xpo", {"beta=1", "alpha=0.01"}, "initial", 32, 2};

Found online(const Online& o, uint64_t seed) {
  PolicyModel policy = letters_policy();
  const ReferenceModel reference = ReferenceModel::copy_of(policy);
  OfflineLoss loss(o.loss, online_preference_objectives());
  for (const auto& s : o.settings) config_set(config_fields(loss), s);
  SampledPairs::Parts sampled;
  sampled.config.prompts_per_round = o.prompts;
  sampled.config.completions = o.completions;
  sampled.rollout.max_new_tokens = 2;
  sampled.prompts = letter_prompts();
  sampled.labeler = reward_labeler({letters_reward()});
  sampled.opponent = o.loss == "xpo" ? Opponent::kReference : Opponent::kPolicy;
  sampled.reference = reference;
  sampled.seed = seed;
  PreferenceTrainer::Parts p;
  p.config.sampling = sampled.config;
  p.config.rows_per_step = 32;
  p.config.reference = o.reference;
  p.objective = loss.build();
  p.needs = loss.needs();
  p.beta = loss.setting("beta");
  p.reference = reference;
  p.schedule = {.shape = "constant", .learning_rate = 0.003};
  p.total_steps = kSteps;
  p.seed = seed;
  p.source = std::make_unique<SampledPairs>(policy, std::move(sampled));
  PreferenceTrainer trainer(policy, std::move(p));
  while (trainer.steps_done() < kSteps) {
    try {
      (void)trainer.step();
    } catch (const NothingToLearn&) {
      break;  // All answers are gg by now.
    }
  }
  return found_by(policy);
}

TEST(AnswerProbe, CountsTheEndOrNot) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "probe.jsonl";
  std::ofstream(file) << R"({"prompt":"x=","completion":"gg"})" << "\n";
  PolicyModel policy = letters_policy();
  std::vector<AnswerGroup> all;
  double sum = 0;
  for (int32_t id = 0; id < kIds; ++id) all.push_back({.prompt = kPrompt, .answers = {{{id}, {}}}});
  for (const double p : AnswerProbe(all, 1).probabilities(policy.lm())) sum += p;
  EXPECT_NEAR(sum, 1, 1e-6);
  const auto measured = [&](bool ended, int64_t step) {
    Metrics m;
    AnswerProbe::make({file.string(), 2, ended}, policy.text())->add_to(m, step, policy.lm());
    return m;
  };
  const double open = measured(false, 2).at("probe/probability");
  const double closed = measured(true, 2).at("probe/probability");
  EXPECT_EQ(open, found_by(policy).best);
  const int32_t g = kA + kLetters - 1;
  const AnswerGroup with_end{.prompt = kPrompt, .answers = {{{g, g, kEos}, {}}}};
  EXPECT_EQ(closed, AnswerProbe({with_end}, 1).probabilities(policy.lm())[0]);
  EXPECT_NEAR(std::exp(measured(true, 4).at("probe/logps")), closed, 1e-12);
  EXPECT_TRUE(measured(true, 3).empty());
  EXPECT_FALSE(AnswerProbe::make({}, policy.text()));
}

TEST(AbsentAnswer, GivenPairsNeverFindIt) {
  PolicyModel untrained = letters_policy();
  const Found before = found_by(untrained);
  RecordProperty("before", before.words());
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Found f = offline_dpo(seed);
    RecordProperty("seed_" + std::to_string(seed), f.words());
    EXPECT_LT(f.best, before.best) << seed;  // Not only not found: farther away than before.
    EXPECT_LT(f.score, 0.6) << seed;         // dd is worth 1/2, and the best there is 1.
  }
}

class OwnAnswers : public testing::TestWithParam<std::pair<const char*, Online>> {};

TEST_P(OwnAnswers, FindIt) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Found f = online(GetParam().second, seed);
    RecordProperty("seed_" + std::to_string(seed), f.words());
    EXPECT_GT(f.best, 0.9) << GetParam().first << " " << seed;
  }
}

// What a person sees of it: one curve rises, the other does not.
TEST(AbsentAnswer, TheReportDrawsItsProbability) {
  const TemporaryFolder folder;
  const fs::path prompts = folder.path() / "prompts.jsonl", pairs = folder.path() / "pairs.jsonl",
                 probe = folder.path() / "probe.jsonl";
  std::ofstream(prompts) << R"({"prompt":"x="})" << "\n";
  std::ofstream(probe) << R"({"prompt":"x=","completion":"gg"})" << "\n";
  std::ofstream given(pairs);
  const auto text = [](const TokenAnswer& a) {
    std::string out;
    for (const int32_t id : a.ids) out += static_cast<char>('a' + id - kA);
    return out;
  };
  for (const AnswerGroup& g : letter_pairs(1).groups) {
    const nlohmann::json row = {{"prompt", "x="},
                                {"chosen", text(g.answers[0])},
                                {"rejected", text(g.answers[1])}};
    given << row.dump() << "\n";
  }
  given.close();
  const std::vector<std::string> both = {"model=" + letters_model().string(),
                                         "probe.path=" + probe.string(),
                                         "probe.ended=false",
                                         "schedule.learning_rate=0.003",
                                         "schedule.shape=constant",
                                         "trainer.threads=1",
                                         "trainer.steps=80"};
  auto online = both, offline = both;
  online.insert(online.end(), {"task.name=jsonl", "task.path=" + prompts.string(),
                               "task.held_out_fraction=0", "trainer.steps=200", "rollout.max_new_tokens=2",
                               "rollout.temperature=1", "preference.completions=4",
                               "preference.rows_per_step=32"});
  offline.insert(offline.end(), {"data.path=" + pairs.string(), "offline.rows_per_step=32"});
  const auto last = [](const fs::path& run) {
    std::ifstream in(run / "metrics.jsonl");
    double p = -1;
    for (std::string line; std::getline(in, line);) p = nlohmann::json::parse(line)["probe/probability"];
    return p;
  };
  const fs::path a = folder.path() / "iterative", b = folder.path() / "offline";
  // It is so certain before the last step that no two answers differ, and the run ends there.
  const RunResult r = train_preference(read_preference_config("iterative-dpo", "", "", online),
                         {.output = a,
                                         .observers = {std::make_shared<JsonlObserver>()},
                                         .rewards = {letters_reward()}});
  (void)train_offline(read_offline_config("dpo", "", "", offline),
                      {.output = b, .observers = {std::make_shared<JsonlObserver>()}});
  EXPECT_FALSE(r.completed);
  EXPECT_NE(r.reason.find("64 tied"), std::string::npos) << r.reason;
  EXPECT_EQ(list_checkpoints(a).back().step, r.steps);
  EXPECT_GT(last(a), 0.9);
  EXPECT_LT(last(b), 0.01);
  for (const fs::path& run : {a, b}) {
    EXPECT_NE(read_text_file(run / "report.html").find("Given answers"), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(AbsentAnswer, OwnAnswers,
                         testing::Values(std::pair("online_dpo", kOnlineDpo),
                                         std::pair("iterative_dpo", kIterativeDpo),
                                         std::pair("xpo", kXpo)),
                         [](const auto& test) { return std::string(test.param.first); });

}  // namespace
}  // namespace temper::testing_trainer
