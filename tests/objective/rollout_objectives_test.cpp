// The table of losses, their settings, the checks on settings and batches, and the entropy cut.
#include "temper/objective/rollout_objectives.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "error_of.h"
#include "rollout_case.h"
#include "temper/objective/cispo.h"
#include "temper/objective/dapo.h"
#include "temper/objective/entropy.h"
#include "temper/objective/gspo.h"
#include "temper/objective/sapo.h"
#include "temper/objective/vespo.h"

namespace temper {
namespace {

/// A user's loss: REINFORCE, in one struct.
struct Reinforce {
  struct Config {
    double scale = 1;
    template <class V>
    void visit(V&& v) { v(scale, "scale", "Factor of the loss."); }
  };
  using Batch = RolloutBatch;
  Config config;

  LossOutput operator()(const RolloutBatch& batch) const {
    const PolicyTokens t = policy_tokens(batch);
    return {(-config.scale * t.advantages * t.logprobs * token_mean(t)).sum(), {}};
  }
};
static_assert(Objective<Reinforce>);
static_assert(RolloutLossType<Reinforce>);

TEST(RolloutObjectives, TheDefaultIsFirstAndNamesAreUnique) {
  EXPECT_EQ(rollout_objectives().front().name, RolloutLoss().name());
  std::map<std::string, int> seen;
  for (const RolloutObjectiveEntry& entry : rollout_objectives()) {
    EXPECT_EQ(++seen[entry.name], 1);
    EXPECT_FALSE(entry.doc.empty());
    EXPECT_NE(entry.settings()->build(), nullptr);
  }
  EXPECT_EQ(seen.size(), 10u);
}

TEST(RolloutObjectives, EveryFieldIsDeclaredOnceAndWithHelp) {
  for (const RolloutObjectiveEntry& entry : rollout_objectives()) {
    RolloutLoss loss(entry.name);
    const auto fields = config_fields(loss);
    EXPECT_LE(fields.size(), 15u);
    std::map<std::string, int> seen;
    for (const ConfigField& field : fields) {
      EXPECT_EQ(++seen[field.name], 1) << field.name;
      EXPECT_FALSE(field.help.empty()) << field.name;
    }
    for (const char* name : {"name", "importance_level", "kl_coef", "entropy_coef"}) {
      EXPECT_TRUE(seen.contains(name)) << entry.name << " " << name;
    }
  }
}

TEST(RolloutObjectives, DefaultsAreThoseOfTheReference) {
  const ClippedLossConfig clipped;
  EXPECT_EQ(clipped.clip_low, 0.2);
  EXPECT_EQ(clip_range(clipped).high, 0.2);
  EXPECT_FALSE(clip_range(clipped).delta.has_value());
  EXPECT_EQ(clipped.kl_coef, 0);
  EXPECT_TRUE(clipped.kl_bias_correction);
  EXPECT_EQ(Gspo::Config().clip_low, 3e-4);
  EXPECT_EQ(Gspo::Config().clip_high, 4e-4);
  EXPECT_EQ(Gspo::Config().importance_level, "sequence");
  EXPECT_EQ(Cispo::Config().ratio_max, 5);
}

TEST(RolloutObjectives, AUserAppendsARow) {
  std::vector<RolloutObjectiveEntry> table = rollout_objectives();
  table.push_back(rollout_objective<Reinforce>("reinforce", "A times lp."));
  RolloutLoss loss("reinforce", table);
  config_set(config_fields(loss), "scale=2");
  const PaddedRollout r = golden_rollout("plain");
  const LossRun doubled = run_loss(loss.build(), r.batch());
  const LossRun single = run_loss(Reinforce{}, r.batch());
  EXPECT_DOUBLE_EQ(doubled.loss, 2 * single.loss);
  EXPECT_DOUBLE_EQ(single.dlp[0], -r.advantages[0] / r.active_tokens());
}

TEST(RolloutLoss, CopiesKeepTheirOwnSettings) {
  RolloutLoss a("dapo");
  config_set(config_fields(a), "clip_high=0.28");
  RolloutLoss b = a;
  config_set(config_fields(b), "clip_high=0.5");
  const auto json = [](RolloutLoss& loss) { return config_to_json(config_fields(loss)); };
  EXPECT_EQ(json(a)["clip_high"], 0.28);
  EXPECT_EQ(json(b)["clip_high"], 0.5);
  a = b;
  EXPECT_EQ(json(a)["clip_high"], 0.5);
  a.select("dapo");
  EXPECT_EQ(json(a)["clip_high"], 0.5) << "selecting the same loss keeps its settings";
  a.select("cispo");
  EXPECT_FALSE(json(a).contains("clip_high"));
  EXPECT_EQ(json(a)["name"], "cispo");
}

TEST(RolloutLoss, NameMistakes) {
  EXPECT_EQ(error_of([] { RolloutLoss("dappo"); }),
            "[loss] unknown loss \"dappo\"; did you mean \"dapo\"?");
  RolloutLoss loss;
  config_set(config_fields(loss), "name=cispo");
  EXPECT_EQ(error_of([&] { (void)loss.build(); }),
            "[loss] the settings were read for \"dapo\", then the name was set to \"cispo\"; "
            "select the loss before its settings");
}

/// The error of a loss built with one setting changed.
template <class Loss, class Value>
std::string setting_error(Value Loss::Config::* field, Value value) {
  typename Loss::Config config;
  config.*field = value;
  return error_of([&] { Loss{config}; });
}

TEST(Settings, OutOfRangeIsRefused) {
  using D = Dapo::Config;
  const auto dapo = [](auto change) {
    D config;
    change(config);
    return error_of([&] { Dapo{config}; });
  };
  EXPECT_EQ(dapo([](D& c) { c.importance_level = "word"; }),
            "[objective] importance_level must be \"token\" or \"sequence\", got \"word\"");
  EXPECT_EQ(dapo([](D& c) { c.kl_estimator = "k4"; }),
            "[objective] kl_estimator must be \"k1\", \"k2\" or \"k3\", got \"k4\"");
  EXPECT_EQ(dapo([](D& c) { c.clip_low = 1.5; }),
            "[objective] clip_low must be in [0, 1], got 1.5");
  EXPECT_EQ(dapo([](D& c) { c.kl_coef = -1; }),
            "[objective] kl_coef must be finite and at least 0, got -1");
  EXPECT_EQ(dapo([](D& c) { c.delta = 0.5; }),
            "[objective] delta bounds the ratio from above and must be above 1, got 0.5; a "
            "negative value is off");
  EXPECT_EQ(dapo([](D& c) { c.off_policy_threshold = std::nan(""); }),
            "[objective] off_policy_threshold is NaN; a negative value means off");
  EXPECT_EQ(setting_error<Cispo>(&Cispo::Config::ratio_max, 0.2),
            "[cispo] ratio_max is a bound of the ratio itself and must be above 1 (try 5), got "
            "0.2");
  EXPECT_EQ(setting_error<Sapo>(&Sapo::Config::temperature_neg, 0.0),
            "[sapo] temperatures must be positive, got 1 and 0");
  EXPECT_EQ(setting_error<Vespo>(&Vespo::Config::k_pos, -1.0),
            "[vespo] k_pos and k_neg must be at least 0, got -1 and 3");
}

TEST(Batches, MistakesAreNamed) {
  const auto run = [](auto change, const char* loss = "dapo", const char* setting = "kl_coef=0") {
    PaddedRollout r = golden_rollout("plain");
    RolloutBatch b = r.batch();
    change(b);
    RolloutLoss l(loss);
    config_set(config_fields(l), setting);
    return error_of([&] { (void)l.build()(b); });
  };
  using B = RolloutBatch;
  EXPECT_EQ(run([](B&) {}), "");
  EXPECT_EQ(run([](B& b) { b.mask = b.mask.narrow(0, 0, 3); }),
            "[objective] mask must have shape [57] like the log-probabilities, got 1 dimensions "
            "and 3 values");
  EXPECT_EQ(run([](B& b) { b.advantages = b.advantages.narrow(0, 0, 3); }),
            "[objective] advantages must have shape [8] (completions) or [57] (tokens), got 1 "
            "dimensions and 3 values");
  EXPECT_EQ(run([](B& b) { b.totals.tokens = 0; }),
            "[objective] totals.tokens must count the whole optimizer step: it is 0, and this "
            "micro-batch alone has 49 active tokens");
  EXPECT_EQ(run([](B& b) { b.totals.sequences = 7; }),
            "[objective] totals.sequences must count the whole optimizer step: it is 7, and this "
            "micro-batch alone has 8");
  EXPECT_EQ(run([](B& b) { b.ref_logprobs = at::Tensor(); }, "dapo", "kl_coef=0.1"),
            "[objective] a KL term needs reference log-probabilities (ref_logprobs); load a "
            "reference model or set kl_coef to 0");
  EXPECT_EQ(run([](B& b) { b.entropy = at::Tensor(); }, "dapo", "entropy_coef=0.1"),
            "[objective] entropy_coef is set, so the batch must carry entropy");
  EXPECT_EQ(run([](B& b) { b.entropy = at::Tensor(); b.totals.entropy_threshold = 1; }),
            "[objective] totals.entropy_threshold is set, so the batch must carry entropy");
  EXPECT_EQ(run([](B& b) { b.totals.max_completion_tokens = 0; }, "dr_grpo"),
            "[objective] this loss divides by totals.max_completion_tokens, which must be "
            "positive, got 0");
}

TEST(EntropyThreshold, InterpolatesAndCounts) {
  const std::vector<float> h = {3, 1, 9, 2, 2};
  const std::vector<float> m = {1, 1, 0, 1, 1};
  const auto cut = [&](double q) {
    return entropy_threshold(std::span<const float>(h), std::span<const float>(m), q);
  };
  EXPECT_EQ(cut(0).threshold, 1);
  EXPECT_EQ(cut(0).tokens, 4);
  EXPECT_DOUBLE_EQ(cut(0.1).threshold, 1.3);
  EXPECT_EQ(cut(0.1).tokens, 3);
  EXPECT_EQ(cut(0.5).threshold, 2) << "both ties stay";
  EXPECT_EQ(cut(0.5).tokens, 3);
  EXPECT_DOUBLE_EQ(cut(0.9).threshold, 2.7);
  EXPECT_EQ(cut(1).threshold, 3);
  EXPECT_EQ(cut(1).tokens, 1);
}

TEST(EntropyThreshold, EdgesAndMistakes) {
  const std::vector<double> h = {1, std::nan("")};
  const std::vector<double> none = {0, 0}, all = {1, 1}, first = {1, 0};
  const auto cut = [&](const std::vector<double>& m, double q) {
    return entropy_threshold(std::span<const double>(h), std::span<const double>(m), q);
  };
  EXPECT_EQ(cut(none, 0.5).threshold, -std::numeric_limits<double>::infinity());
  EXPECT_EQ(cut(none, 0.5).tokens, 0);
  EXPECT_EQ(cut(first, 0.9).threshold, 1);
  EXPECT_EQ(error_of([&] { (void)cut(all, 0.5); }),
            "[entropy_threshold] entropy of token 1 is NaN");
  EXPECT_EQ(error_of([&] { (void)cut(first, 1.5); }),
            "[entropy_threshold] quantile must be in [0, 1], got 1.5");
  EXPECT_EQ(error_of([&] { (void)cut({1}, 0.5); }),
            "[entropy_threshold] 2 entropies and a mask of 1");
}

}  // namespace
}  // namespace temper
