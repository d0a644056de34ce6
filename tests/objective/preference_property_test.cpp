// Losses over given answers: splits, slopes, extremes, equalities between settings.
#include <gtest/gtest.h>

#include <cmath>

#include "answer_case.h"
#include "temper/objective/answer_sums.h"

namespace temper {
namespace {

struct Variant {
  std::string method;
  std::vector<std::string> settings;
};

/// Every loss, with settings that reach its branches.
std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (const char* name :
       {"sigmoid", "hinge", "ipo", "sigmoid_norm", "discopop", "nca_pair", "bco_pair", "sppo_hard",
        "apo_zero", "apo_down", "sft", "aot", "aot_unpaired"}) {
    all.push_back({"dpo", {std::string("loss_type=") + name, "beta=0.4"}});
  }
  for (const char* name : {"cdpo", "robust", "exo_pair", "aot", "aot_unpaired"}) {
    all.push_back({"dpo", {std::string("loss_type=") + name, "label_smoothing=0.1"}});
  }
  for (const char* name : {"forward_kl", "js_divergence", "alpha_divergence"}) {
    all.push_back({"dpo", {std::string("f_divergence=") + name, "loss_type=sigmoid,ipo"}});
  }
  all.push_back({"dpo", {"ld_alpha=0.3", "loss_type=sigmoid,sft,sppo_hard"}});
  all.push_back({"dpo", {"use_weighting=true", "loss_type=sigmoid"}});
  all.push_back({"dpo", {"loss_type=sigmoid,aot_unpaired,sft", "loss_weights=0.5,2,0.1"}});
  all.push_back({"kto", {"desirable_weight=1.5"}});
  all.push_back({"kto", {"loss_type=apo_zero_unpaired"}});
  all.push_back({"bco", {}});
  for (const char* name : {"sigmoid", "hinge", "ipo", "simpo", "alphapo"}) {
    all.push_back({"cpo", {std::string("loss_type=") + name, "alpha=0.25"}});
  }
  all.push_back({"cpo", {"label_smoothing=0.2"}});
  all.push_back({"simpo", {}});
  all.push_back({"orpo", {"beta=0.5"}});
  all.push_back({"sft", {}});
  all.push_back({"xpo", {"alpha=0.1"}});
  all.push_back({"xpo", {"alpha=0.1", "loss_type=ipo"}});
  all.push_back({"nash_md", {"beta=0.3"}});
  return all;
}

/// Sixteen answers of unequal lengths; holes, a fully masked one, ties, prompts.
AnswerStep varied(const std::string& method) {
  AnswerStep s;
  s.baseline = 0.15;
  for (int i = 0; i < 16; ++i) {
    AnswerRow r;
    const int length = 1 + (i * 5) % 9;
    for (int t = 0; t < length; ++t) {
      r.lp.push_back(-0.1 - std::abs(std::sin(1.7 * i + 0.9 * t)) * 2);
      r.ref.push_back(r.lp.back() + 0.3 * std::cos(2.3 * i + 1.1 * t));
      r.sharp.push_back(r.lp.back() * 1.3);
      r.mask.push_back(i == 7 || (i % 3 == 0 && t == 2) ? 0 : 1);
    }
    if (method == "orpo") r.prompt = Numbers(static_cast<size_t>(i % 4), -0.6);
    r.label = method == "nash_md" ? 0.06 * i : (i / 2 + i) % 2;
    s.rows.push_back(r);
  }
  s.rows[8].lp = s.rows[10].lp;  // Equal values: sorting must not depend on the split.
  s.rows[8].ref = s.rows[10].ref;
  s.rows[8].sharp = s.rows[10].sharp;
  s.rows[8].mask = s.rows[10].mask;
  return s;
}

TEST(PreferenceSplits, AnySplitGivesTheSameGradientsAndLoss) {
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.method + " " + (v.settings.empty() ? "" : v.settings[0]));
    const AnswerStep step = varied(v.method);
    const OfflineObjective objective = answer_loss(v.method, v.settings).build();
    const AnswerSums sums = step.sums();
    AnswerBatch whole = step.batch();
    whole.totals.sums = &sums;
    const AnswerRun one = run_answers(objective, whole);
    for (const std::vector<size_t>& cuts :
         {std::vector<size_t>{0, 2, 4, 6, 8, 10, 12, 14, 16}, {0, 6, 8, 16}}) {
      double loss = 0;
      Numbers gradients, prompts;
      MetricSums metrics;
      for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        AnswerBatch part = step.batch(cuts[i], cuts[i + 1]);
        part.totals.sums = &sums;
        const AnswerRun run = run_answers(objective, part);
        loss += run.loss;
        gradients.insert(gradients.end(), run.dlp.begin(), run.dlp.end());
        prompts.insert(prompts.end(), run.dprompt.begin(), run.dprompt.end());
        metrics.merge(objective(part).metrics);
      }
      EXPECT_NEAR(loss, one.loss, 1e-12 * std::max(1.0, std::abs(one.loss)));
      EXPECT_EQ(gradients, one.dlp) << "to the bit";
      EXPECT_EQ(prompts, one.dprompt);
      Metrics together;
      metrics.write_to(together);
      ASSERT_EQ(together.size(), one.metrics.size());
      for (const auto& [name, value] : one.metrics) {
        EXPECT_NEAR(together.at(name), value, 1e-12 * std::max(1.0, std::abs(value))) << name;
      }
    }
  }
}

TEST(PreferenceSplits, SortedLossesTakeTheStepFromTheBatchWhereTheyAreOne) {
  for (const char* type : {"loss_type=aot", "loss_type=aot_unpaired"}) {
    const AnswerStep step = varied("dpo");
    const OfflineObjective objective = answer_loss("dpo", {type}).build();
    const AnswerSums sums = step.sums();
    AnswerBatch given = step.batch();
    given.totals.sums = &sums;
    EXPECT_EQ(run_answers(objective, given).dlp, run_answers(objective, step.batch()).dlp);
  }
}

TEST(PreferenceSlopes, AreThoseOfFiniteDifferences) {
  const double h = 1e-6;
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.method + " " + (v.settings.empty() ? "" : v.settings[0]));
    // Weights of pairs are constants to the gradient, not to a difference.
    if (v.settings.size() && v.settings[0] == "use_weighting=true") continue;
    AnswerStep step = varied(v.method);
    step.rows.resize(6);
    step.rows[1].mask[0] = 0;
    const OfflineObjective objective = answer_loss(v.method, v.settings).build();
    const AnswerRun run = run_answers(objective, step.batch());
    const bool constant_factor = v.method == "nash_md";
    size_t at = 0;
    for (AnswerRow& row : step.rows) {
      for (double& lp : row.lp) {
        const double kept = lp;
        const auto loss = [&](double shift) {
          lp = kept + shift;
          return objective(step.batch()).loss.item<double>();
        };
        double slope = (loss(h) - loss(-h)) / (2 * h);
        lp = kept;
        // d/dx of beta (x - ref) x has the factor's own slope too: beta x, over the answers.
        const auto t = static_cast<size_t>(&lp - row.lp.data());
        if (constant_factor && row.mask[t] != 0) slope -= 0.3 * kept / 6;
        EXPECT_NEAR(run.dlp[at++], slope, 2e-8 * std::max(1.0, std::abs(slope)));
      }
    }
  }
}

TEST(PreferenceExtremes, NothingIsNanOrInfinite) {
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.method + " " + (v.settings.empty() ? "" : v.settings[0]));
    AnswerStep step;
    for (int i = 0; i < 8; ++i) {
      const double far = i % 4 < 2 ? -1e4 : -0.0;
      step.rows.push_back({.lp = {far, -1}, .ref = {i % 3 ? -1.0 : -2e4, -1}, .sharp = {far, -1}});
      step.rows.back().label = v.method == "nash_md" ? 0.5 : i % 2;
    }
    // What a masked token holds must reach nothing.
    step.rows[2].mask = {1, 0};
    step.rows[2].lp[1] = std::nan("");
    step.rows[2].ref[1] = INFINITY;
    const AnswerRun run = run_answers(answer_loss(v.method, v.settings).build(), step.batch());
    EXPECT_TRUE(std::isfinite(run.loss)) << run.loss;
    for (const double g : run.dlp) EXPECT_TRUE(std::isfinite(g)) << g;
    for (const auto& [name, value] : run.metrics) EXPECT_TRUE(std::isfinite(value)) << name;
  }
}

TEST(PreferenceExtremes, AFullyMaskedMicroBatchAddsNothingButConstants) {
  for (const char* method : {"sft", "dpo", "cpo", "orpo"}) {
    AnswerStep step = varied(method);
    for (size_t i = 0; i < 2; ++i) {
      step.rows[i].mask.assign(step.rows[i].lp.size(), 0);
      step.rows[i].prompt.clear();
    }
    const AnswerRun run = run_answers(answer_loss(method).build(), step.batch(0, 2));
    for (const double g : run.dlp) EXPECT_EQ(g, 0) << method;
  }
}

double dpo(const AnswerStep& s, const std::vector<std::string>& settings) {
  return answer_loss("dpo", settings).build()(s.batch()).loss.item<double>();
}

TEST(DpoEqualities, BetweenSettings) {
  const AnswerStep s = varied("dpo");
  const double plain = dpo(s, {});
  EXPECT_EQ(dpo(s, {"loss_type=robust"}), plain);
  EXPECT_EQ(dpo(s, {"loss_type=cdpo"}), plain);
  EXPECT_EQ(dpo(s, {"f_divergence=alpha_divergence", "f_alpha=1"}), plain);
  EXPECT_NEAR(dpo(s, {"f_divergence=alpha_divergence", "f_alpha=1.00001"}), plain, 1e-5);
  // Order 0 of alpha is the forward divergence.
  EXPECT_NEAR(dpo(s, {"f_divergence=alpha_divergence", "f_alpha=0"}),
              dpo(s, {"f_divergence=forward_kl"}), 1e-14);
  AnswerStep pair = s;
  pair.rows.resize(2);
  EXPECT_NEAR(dpo(pair, {"loss_type=aot"}), dpo(pair, {}), 1e-15);
  EXPECT_NEAR(dpo(pair, {"loss_type=aot_unpaired"}), dpo(pair, {}), 1e-15);
  // Two answers of four tokens each: the mean is beta / 4.
  pair.rows = {{.lp = {-1, -2, -3, -1}, .ref = {-2, -2, -1, -1}},
               {.lp = {-2, -1, -1, -1}, .ref = {-1, -3, -1, -2}}};
  EXPECT_NEAR(dpo(pair, {"loss_type=sigmoid_norm", "beta=0.4"}), dpo(pair, {"beta=0.1"}), 1e-15);
}

TEST(DpoEqualities, ExoRestsAtTheSmoothedTarget) {
  // D = log((1 - e) / e) / beta with e = 0.1 and beta = 0.5.
  AnswerStep s;
  s.rows = {{.lp = {-1}, .ref = {-1 - std::log(9.0) / 0.5}}, {.lp = {-2}, .ref = {-2}}};
  const AnswerRun run = run_answers(
      answer_loss("dpo", {"loss_type=exo_pair", "label_smoothing=0.1", "beta=0.5"}).build(),
      s.batch());
  EXPECT_NEAR(run.loss, 0, 1e-14);
  EXPECT_NEAR(run.dlp[0], 0, 1e-14);
}

TEST(DpoEqualities, LikelihoodAloneNeedsNoReference) {
  AnswerStep s = varied("dpo");
  const AnswerRun with = run_answers(answer_loss("dpo", {"loss_type=sft"}).build(), s.batch());
  s.reference = false;
  const AnswerRun without = run_answers(answer_loss("dpo", {"loss_type=sft"}).build(), s.batch());
  EXPECT_EQ(with.loss, without.loss);
  EXPECT_TRUE(with.metrics.contains("rewards/margins"));
  EXPECT_FALSE(without.metrics.contains("rewards/margins"));
  EXPECT_TRUE(without.metrics.contains("logps/chosen"));
}

}  // namespace
}  // namespace temper
