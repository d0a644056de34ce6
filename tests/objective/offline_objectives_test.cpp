// The tables of losses over given answers: settings, what each reads, errors.
#include "temper/objective/offline_objectives.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "answer_case.h"
#include "error_of.h"
#include "temper/core/file.h"
#include "temper/objective/answer_sums.h"
#include "temper/objective/dpo.h"
#include "temper/objective/kto.h"
#include "temper/objective/orpo.h"

namespace temper {
namespace {

using Baseline = OfflineNeeds::Baseline;

std::string setting_error(const std::string& method, const std::vector<std::string>& settings) {
  return error_of([&] { (void)answer_loss(method, settings).build(); });
}

OfflineNeeds needs(const std::string& method, const std::vector<std::string>& settings = {}) {
  return answer_loss(method, settings).needs();
}

TEST(OfflineObjectives, NamesAreUniqueAndEveryFieldHasHelp) {
  EXPECT_EQ(offline_objectives().front().name, OfflineLoss().name());
  EXPECT_EQ(offline_objectives().size(), 7u);
  EXPECT_EQ(online_preference_objectives().size(), 3u);
  for (const auto* table : {&offline_objectives(), &online_preference_objectives()}) {
    std::map<std::string, int> names;
    for (const OfflineObjectiveEntry& entry : *table) {
      EXPECT_EQ(++names[entry.name], 1);
      EXPECT_FALSE(entry.doc.empty());
      EXPECT_NE(entry.settings()->build(), nullptr);
      OfflineLoss loss(entry.name, *table);
      const auto fields = config_fields(loss);
      EXPECT_LE(fields.size(), 15u);
      for (const ConfigField& f : fields) EXPECT_FALSE(f.help.empty()) << f.name;
    }
  }
}

TEST(OfflineObjectives, DefaultsAreThoseOfTheReference) {
  const DpoConfig dpo;
  EXPECT_EQ(dpo.loss_type, std::vector<std::string>{"sigmoid"});
  EXPECT_EQ(dpo.beta, 0.1);
  EXPECT_EQ(dpo.f_alpha, 0.5);
  EXPECT_EQ(dpo.discopop_tau, 0.05);
  EXPECT_EQ(Kto::Config().desirable_weight, 1);
  EXPECT_EQ(Orpo::Config().beta, 0.1);
  EXPECT_EQ(answer_loss("simpo").setting("beta"), 2);
  EXPECT_EQ(answer_loss("sft").setting("beta"), 0);
}

TEST(OfflineObjectives, NeedsFollowTheSettings) {
  const OfflineNeeds sft = needs("sft");
  EXPECT_FALSE(sft.pairs || sft.labels || sft.reference || sft.sharp_logprobs || sft.sums ||
               sft.prompt_logprobs);
  const OfflineNeeds dpo = needs("dpo");
  EXPECT_TRUE(dpo.pairs && dpo.reference);
  EXPECT_FALSE(dpo.labels || dpo.sharp_logprobs || dpo.sums || dpo.prompt_logprobs);
  EXPECT_FALSE(needs("dpo", {"loss_type=sft"}).reference);
  EXPECT_TRUE(needs("dpo", {"loss_type=sft,sigmoid"}).reference);
  EXPECT_TRUE(needs("dpo", {"use_weighting=true"}).sharp_logprobs);
  EXPECT_TRUE(needs("dpo", {"loss_type=sigmoid,aot"}).sums);
  EXPECT_TRUE(needs("dpo", {"loss_type=aot_unpaired"}).sums);
  EXPECT_TRUE(needs("kto").labels && needs("kto").reference && !needs("kto").pairs);
  EXPECT_EQ(needs("kto").baseline, Baseline::kKto);
  EXPECT_EQ(needs("kto", {"loss_type=apo_zero_unpaired"}).baseline, Baseline::kNone);
  EXPECT_EQ(needs("bco").baseline, Baseline::kBco);
  EXPECT_TRUE(needs("cpo").pairs && !needs("cpo").reference);
  EXPECT_TRUE(needs("simpo").pairs && !needs("simpo").reference);
  EXPECT_TRUE(needs("orpo").prompt_logprobs && !needs("orpo").reference);
  EXPECT_TRUE(needs("xpo").pairs && needs("xpo").labels && needs("xpo").reference);
  EXPECT_TRUE(needs("nash_md").labels && !needs("nash_md").pairs);
}

/// A user's loss: the mean log-prob of desirable answers, up.
// [shown: a loss]
struct Upward {
  struct Config {
    double scale = 1;
    template <class V>
    void visit(V&& v) {
      v(scale, "scale", "Factor of the loss.");
    }
  };
  using Batch = AnswerBatch;
  Config config;

  [[nodiscard]] OfflineNeeds needs() const {
    OfflineNeeds n;
    n.labels = true;
    return n;
  }
  LossOutput operator()(const AnswerBatch& b) const {
    const AnswerTerms t = answer_terms(b);
    return {(-config.scale * t.mean(t.logprobs) * b.labels).sum() / b.totals.answers, {}};
  }
};
// [end]
static_assert(OfflineLossType<Upward>);

TEST(OfflineObjectives, AUserAppendsARow) {
  std::vector<OfflineObjectiveEntry> table = offline_objectives();
  table.push_back(offline_objective<Upward>("upward", "Up."));
  OfflineLoss loss("upward", table);
  config_set(config_fields(loss), "scale=2");
  EXPECT_TRUE(loss.needs().labels);
  AnswerStep step;
  step.rows = {{.lp = {-1, -3}, .label = 1}, {.lp = {-5}}};
  EXPECT_DOUBLE_EQ(run_answers(loss.build(), step.batch()).loss, 2);
}

TEST(OfflineObjectives, ThePageShowsThatLoss) {
  const std::string root = TEMPER_SOURCE_DIR "/";
  const std::string source = read_text_file(root + "tests/objective/offline_objectives_test.cpp");
  const size_t begin = source.find('\n', source.find("// [shown: a loss]\n")) + 1;
  const std::string part = source.substr(begin, source.find("// [end]\n", begin) - begin);
  EXPECT_NE(part.find("struct Upward"), std::string::npos);
  EXPECT_NE(read_text_file(root + "docs/algorithms_preference.md").find("```cpp\n" + part + "```"),
            std::string::npos)
      << "docs/algorithms_preference.md does not hold this part as it stands here:\n"
      << part;
}

TEST(OfflineLossType, CopiesKeepTheirOwnSettings) {
  OfflineLoss a("dpo");
  config_set(config_fields(a), "beta=0.3");
  OfflineLoss b = a;
  config_set(config_fields(b), "beta=0.5");
  EXPECT_EQ(a.setting("beta"), 0.3);
  EXPECT_EQ(b.setting("beta"), 0.5);
  a = b;
  EXPECT_EQ(a.setting("beta"), 0.5);
  a.select("dpo");
  EXPECT_EQ(a.setting("beta"), 0.5) << "selecting the same loss keeps its settings";
  a.select("kto");
  EXPECT_EQ(a.setting("beta"), 0.1);
}

TEST(OfflineErrors, Names) {
  EXPECT_EQ(error_of([] { OfflineLoss("dppo"); }),
            "[loss] unknown loss \"dppo\"; did you mean \"dpo\"?");
  OfflineLoss loss("dpo");
  config_set(config_fields(loss), "name=kto");
  EXPECT_EQ(error_of([&] { (void)loss.build(); }),
            "[loss] the settings were read for \"dpo\", then the name was set to \"kto\"; select "
            "the loss before its settings");
  EXPECT_EQ(setting_error("dpo", {"loss_type=sigmiod"}),
            "[dpo] unknown loss_type \"sigmiod\"; did you mean \"sigmoid\"?");
}

TEST(OfflineErrors, SettingsThatDoNotGoTogether) {
  const auto expect = [](const std::vector<std::string>& settings, const std::string& words) {
    const std::string error = setting_error("dpo", settings);
    EXPECT_NE(error.find(words), std::string::npos) << words << ": " << error;
  };
  for (const std::string type :
       {"nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "aot", "aot_unpaired"}) {
    expect({"loss_type=" + type, "f_divergence=forward_kl"},
           "f_divergence \"forward_kl\" does not go with loss_type \"" + type + "\"");
  }
  for (const std::string type : {"aot", "aot_unpaired", "sft"}) {
    expect({"loss_type=sigmoid," + type, "use_weighting=true"},
           "use_weighting does not go with loss_type \"" + type + "\"");
  }
  expect({"loss_type=aot", "ld_alpha=0.5"}, "ld_alpha does not go with loss_type \"aot\"");
  expect({"loss_type=exo_pair"}, "needs a label_smoothing above 0");
  expect({"label_smoothing=0.1"}, "label_smoothing is 0.1, but no loss in loss_type reads it");
  expect({"loss_type=sigmoid,sft", "loss_weights=1"},
         "loss_weights must have one weight for each of the 2 losses in loss_type, got 1");
}

TEST(OfflineErrors, SettingsOutOfRange) {
  const auto expect = [](const char* method, const char* setting, const char* words) {
    const std::string error = setting_error(method, {setting});
    EXPECT_NE(error.find(words), std::string::npos) << setting << ": " << error;
  };
  expect("dpo", "beta=0", "[dpo] beta must be finite and above 0, got 0");
  expect("dpo", "label_smoothing=0.5", "[dpo] label_smoothing must be in [0, 0.5)");
  expect("dpo", "loss_weights=-1", "[dpo] loss_weights must be finite and at least 0");
  expect("dpo", "discopop_tau=0", "[dpo] discopop_tau");
  expect("dpo", "ld_alpha=1.5", "[dpo] ld_alpha must be in [0, 1]");
  expect("kto", "beta=-1", "[kto] beta");
  expect("kto", "desirable_weight=-1", "[kto] desirable_weight and undesirable_weight");
  expect("bco", "beta=0", "[bco] beta");
  expect("cpo", "cpo_alpha=-1", "[cpo] cpo_alpha");
  expect("cpo", "simpo_gamma=-1", "[cpo] simpo_gamma");
  expect("cpo", "label_smoothing=0.7", "[cpo] label_smoothing must be in [0, 0.5)");
  expect("orpo", "beta=-0.1", "[orpo] beta");
  expect("xpo", "alpha=-1", "[xpo] alpha");
  expect("nash_md", "beta=-1", "[nash_md] beta");
  EXPECT_NE(setting_error("cpo", {"loss_type=ipo", "label_smoothing=0.1"})
                .find("loss_type \"ipo\" does not read it"),
            std::string::npos);
  DpoConfig config;
  config.f_divergence = "kl";
  EXPECT_NE(error_of([&] { Dpo{config}; }).find("f_divergence must be"), std::string::npos);
  config = {};
  config.loss_type.clear();
  EXPECT_NE(error_of([&] { Dpo{config}; }).find("at least one loss"), std::string::npos);
}

TEST(OfflineErrors, Batches) {
  AnswerStep step;
  step.rows = {{.lp = {-1, -2}, .ref = {-1, -1}, .sharp = {-1, -1}, .label = 1},
               {.lp = {-3}, .ref = {-2}, .sharp = {-2}}};
  const auto expect = [&](const char* method, const std::vector<std::string>& settings, auto change,
                          const std::string& words) {
    AnswerBatch b = step.batch();
    change(b);
    const std::string error = error_of([&] { (void)answer_loss(method, settings).build()(b); });
    EXPECT_NE(error.find(words), std::string::npos) << words << ": " << error;
  };
  using B = AnswerBatch;
  const auto no_reference = [](B& b) { b.ref_logprobs = at::Tensor(); };
  const auto no_labels = [](B& b) { b.labels = at::Tensor(); };
  expect(
      "dpo", {}, [](B& b) { b.mask = b.mask.narrow(0, 0, 2); }, "mask must have shape [3]");
  expect(
      "dpo", {}, [](B& b) { b.totals.answers = 1; }, "totals.answers must count the whole");
  expect("dpo", {}, no_reference, "[dpo] this loss_type needs the batch's ref_logprobs");
  expect(
      "dpo", {"use_weighting=true"}, [](B& b) { b.sharp_logprobs = at::Tensor(); },
      "use_weighting needs the batch's sharp_logprobs");
  expect(
      "dpo", {"loss_type=aot"}, [](B& b) { b.totals.answers = 4; },
      "totals.sums must be set where the step has more answers (4) than the micro-batch (2)");
  const AnswerSums wrong{{-1, -2}, {-1}};
  expect(
      "dpo", {"loss_type=aot"}, [&](B& b) { b.totals.sums = &wrong; },
      "totals.sums must hold the step's 2 answers");
  const AnswerSums broken{{-1, std::nan("")}, {-1, -1}};
  expect(
      "dpo", {"loss_type=aot"}, [&](B& b) { b.totals.sums = &broken; },
      "a log-prob sum of the step's pair 0 is not finite");
  expect("kto", {}, no_labels, "[kto] needs the batch's labels and ref_logprobs");
  expect("bco", {}, no_reference, "[bco] needs the batch's labels and ref_logprobs");
  expect(
      "orpo", {}, [](B& b) { b.totals.prompt_tokens = 3; },
      "[orpo] the step counts 3 prompt tokens, but the batch has no prompt_logprobs");
  expect(
      "xpo", {}, [](B& b) { b.labels = b.labels * 0; }, "[xpo] labels must mark one answer");
  expect(
      "nash_md", {}, [](B& b) { b.labels = b.labels * 2; },
      "[nash_md] labels must hold probabilities in [0, 1]");
  AnswerStep odd = step;
  odd.rows.pop_back();
  EXPECT_NE(error_of([&] { (void)answer_loss("cpo").build()(odd.batch()); }).find("odd number"),
            std::string::npos);
}

}  // namespace
}  // namespace temper
