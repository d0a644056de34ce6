// Losses over given answers: values worked out on paper.
#include <gtest/gtest.h>

#include <cmath>

#include "answer_case.h"
#include "temper/objective/answer_sums.h"
#include "temper/objective/cpo.h"
#include "temper/objective/dpo.h"

namespace temper {
namespace {

const double kLog2 = std::log(2.0);

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

/// Two pairs, lengths 3 and 2, then 2 and 3; c = 0.5, -0.1 and r = -0.3, 0.1.
AnswerStep worked() {
  AnswerStep s;
  s.rows = {{.lp = {-0.5, -1.0, -0.7}, .ref = {-0.7, -1.1, -0.9}},
            {.lp = {-1.5, -0.9}, .ref = {-1.3, -0.8}},
            {.lp = {-1.2, -0.3}, .ref = {-1.0, -0.4}},
            {.lp = {-0.8, -1.1, -0.6}, .ref = {-1.0, -0.9, -0.7}}};
  return s;
}

/// The policy is the reference.
AnswerStep equal() {
  AnswerStep s = worked();
  for (AnswerRow& r : s.rows) r.ref = r.lp;
  return s;
}

double loss(const AnswerStep& step, const std::string& method,
            const std::vector<std::string>& settings = {}) {
  return run_answers(answer_loss(method, settings).build(), step.batch()).loss;
}

double dpo(const AnswerStep& step, const std::string& type,
           std::vector<std::string> settings = {}) {
  settings.push_back("loss_type=" + type);
  return loss(step, "dpo", settings);
}

TEST(DpoHand, ValuesOfTwoPairs) {
  const AnswerStep s = worked();
  EXPECT_NEAR(dpo(s, "sigmoid"), 0.6785720735, 6e-11);
  EXPECT_NEAR(dpo(s, "hinge"), 0.97, 1e-14);
  EXPECT_NEAR(dpo(s, "ipo"), 23.8869444444, 6e-11);
  EXPECT_NEAR(dpo(s, "sigmoid_norm"), 0.6873808585, 6e-11);
  EXPECT_NEAR(dpo(s, "robust", {"label_smoothing=0.1"}), 0.6748220735, 6e-11);
  EXPECT_NEAR(dpo(s, "cdpo", {"label_smoothing=0.1"}), 0.6815720735, 6e-11);
  EXPECT_NEAR(dpo(s, "exo_pair", {"label_smoothing=0.001"}), 2.7098909642, 6e-11);
  EXPECT_NEAR(dpo(s, "nca_pair"), 1.3790693356, 6e-11);
  EXPECT_NEAR(dpo(s, "bco_pair"), 1.3715193427, 6e-11);
  EXPECT_NEAR(dpo(s, "sppo_hard"), 47.18, 1e-12);
  EXPECT_NEAR(dpo(s, "apo_zero"), 0.9925015621, 6e-11);
  EXPECT_NEAR(dpo(s, "apo_down"), 0.9975039553, 6e-11);
  EXPECT_NEAR(dpo(s, "discopop"), 0.8541578502, 6e-11);
  EXPECT_NEAR(dpo(s, "aot"), 0.6785720735, 6e-11);
  EXPECT_NEAR(dpo(s, "aot_unpaired"), 0.6782721735, 6e-11);
  EXPECT_NEAR(dpo(s, "sft"), 0.74, 1e-14);
  EXPECT_NEAR(dpo(s, "sigmoid,sft", {"loss_weights=1,0.5"}), 1.0485720735, 6e-11);
  EXPECT_NEAR(dpo(s, "sigmoid", {"ld_alpha=0.5"}), 0.6797174304, 6e-11);
}

TEST(DpoHand, DivergencesOfTwoPairs) {
  const AnswerStep s = worked();
  const auto f = [&](const char* type, const std::string& divergence) {
    return dpo(s, type, {"f_divergence=" + divergence});
  };
  EXPECT_NEAR(f("sigmoid", "forward_kl"), 0.6799426534, 6e-11);
  EXPECT_NEAR(f("sigmoid", "js_divergence"), 0.6862368508, 6e-11);
  EXPECT_NEAR(f("sigmoid", "alpha_divergence"), 0.6793893085, 6e-11);
  EXPECT_NEAR(f("ipo", "forward_kl"), 23.9415003974, 6e-11);
  EXPECT_NEAR(f("ipo", "js_divergence"), 24.4539148604, 6e-11);
  EXPECT_NEAR(f("ipo", "alpha_divergence"), 23.9237654442, 3e-9);  // Of a float32 peer.
}

TEST(DpoHand, GradientsAndMetricsOfTwoPairs) {
  const AnswerRun run = run_answers(answer_loss("dpo").build(), worked().batch());
  const double a = 0.0240005330, b = 0.0252499917;
  expect_near(run.dlp, {-a, -a, -a, a, a, -b, -b, b, b, b}, 6e-11, "dlp");
  EXPECT_NEAR(run.metrics.at("rewards/chosen"), 0.02, 1e-15);
  EXPECT_NEAR(run.metrics.at("rewards/rejected"), -0.01, 1e-15);
  EXPECT_NEAR(run.metrics.at("rewards/margins"), 0.03, 1e-15);
  EXPECT_EQ(run.metrics.at("rewards/accuracies"), 0.5);
  EXPECT_NEAR(run.metrics.at("logps/chosen"), -1.85, 1e-14);
  EXPECT_NEAR(run.metrics.at("logps/rejected"), -2.45, 1e-14);
}

TEST(DpoHand, ValuesWhereThePolicyIsTheReference) {
  const AnswerStep s = equal();
  EXPECT_NEAR(dpo(s, "sigmoid"), kLog2, 1e-14);
  EXPECT_NEAR(dpo(s, "cdpo", {"label_smoothing=0.2"}), kLog2, 1e-14);
  EXPECT_NEAR(dpo(s, "robust", {"label_smoothing=0.2"}), kLog2, 1e-14);
  EXPECT_NEAR(dpo(s, "sigmoid_norm"), kLog2, 1e-14);
  EXPECT_NEAR(dpo(s, "aot"), kLog2, 1e-14);
  EXPECT_NEAR(dpo(s, "aot_unpaired"), kLog2, 1e-14);
  EXPECT_NEAR(dpo(s, "hinge"), 1, 1e-14);
  EXPECT_NEAR(dpo(s, "bco_pair"), 2 * kLog2, 1e-14);
  EXPECT_NEAR(dpo(s, "nca_pair"), 2 * kLog2, 1e-14);
  EXPECT_NEAR(dpo(s, "apo_zero"), 1, 1e-14);
  EXPECT_NEAR(dpo(s, "apo_down"), 1, 1e-14);
  EXPECT_NEAR(dpo(s, "discopop"), (kLog2 + 1) / 2, 1e-14);
  EXPECT_NEAR(dpo(s, "ipo", {"beta=0.5"}), 1, 1e-14);
  EXPECT_NEAR(dpo(s, "sppo_hard", {"beta=0.5"}), 2, 1e-14);
  // KL of (1/2, 1/2) from (1 - e, e): -log 2 - (log(1 - e) + log e) / 2.
  EXPECT_NEAR(dpo(s, "exo_pair", {"label_smoothing=0.1"}),
              -kLog2 - 0.5 * (std::log(0.9) + std::log(0.1)), 1e-14);
  for (const char* f : {"forward_kl", "js_divergence", "alpha_divergence"}) {
    EXPECT_NEAR(dpo(s, "sigmoid", {std::string("f_divergence=") + f}), kLog2, 1e-14) << f;
  }
}

TEST(DpoHand, WeightsOfPairs) {
  // p = 1/2 among two words: sum p^2 = 1/2, so each token's log p - log sum p^2 is 0, weight 1. At
  // temperature 1/2 it stays 1/2. Then p = 4/5: sum p^2 = 17/25, weight (4/5) / (17/25) = 20/17.
  AnswerStep s;
  s.rows = {{.lp = {-kLog2, -kLog2}, .ref = {-1, -1}, .sharp = {-kLog2, -kLog2}},
            {.lp = {std::log(0.8)}, .ref = {-1}, .sharp = {std::log(16.0 / 17)}}};
  EXPECT_NEAR(dpo(s, "sigmoid", {"use_weighting=true"}), dpo(s, "sigmoid") * 20 / 17, 1e-14);
  // Weights are constants: gradients scale the same.
  const auto run = [&](const char* weighting) {
    return run_answers(answer_loss("dpo", {weighting}).build(), s.batch());
  };
  const AnswerRun with = run("use_weighting=true"), without = run("use_weighting=false");
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(with.dlp[i], without.dlp[i] * 20 / 17, 1e-15);
}

TEST(DpoHand, TailsWeighLess) {
  // Lengths 3 and 2 with a hole in the first: both count from active tokens. Two are shared.
  AnswerStep s;
  s.rows = {{.lp = {-1, -9, -2, -4}, .ref = {0, 0, 0, 0}, .mask = {1, 0, 1, 1}},
            {.lp = {-3, -5}, .ref = {0, 0}}};
  const AnswerRun run =
      run_answers(answer_loss("dpo", {"ld_alpha=0.25", "beta=1"}).build(), s.batch());
  EXPECT_NEAR(run.metrics.at("logps/chosen"), -1 - 2 - 0.25 * 4, 1e-15);
  EXPECT_NEAR(run.metrics.at("logps/rejected"), -8, 1e-15);
  EXPECT_NEAR(run.loss, std::log1p(std::exp(-4.0)), 1e-14);  // D = -4 + 8.
  const double g = sigmoid(-4.0);
  expect_near(run.dlp, {-g, 0, -g, -0.25 * g, g, g}, 1e-14, "dlp");
}

/// Four answers, two of each kind; log-ratios 0.5 and -0.1, then -0.3 and 0.1.
AnswerStep labelled() {
  AnswerStep s = worked();
  s.rows[0].label = s.rows[2].label = 1;
  return s;
}

TEST(KtoHand, ValuesOfFourAnswers) {
  AnswerStep s = labelled();
  s.baseline = 0.2;
  const AnswerRun run = run_answers(answer_loss("kto").build(), s.batch());
  EXPECT_NEAR(run.loss, 0.4962506561, 6e-11);
  EXPECT_NEAR(run.metrics.at("kl"), 0.2, 1e-15);
  EXPECT_NEAR(run.metrics.at("rewards/chosen"), 0.1 * (0.5 - 0.1) / 2, 1e-15);
  EXPECT_NEAR(run.metrics.at("rewards/rejected"), 0.1 * (-0.3 + 0.1) / 2, 1e-15);
  // Gradient of the first answer's tokens: -beta s'(beta (c - z0)) over four answers.
  const double p = sigmoid(0.1 * 0.3);
  EXPECT_NEAR(run.dlp[0], -0.1 * p * (1 - p) / 4, 1e-15);
  s.baseline = 0;
  AnswerStep e = equal();
  e.rows[0].label = 1;
  EXPECT_NEAR(loss(e, "kto", {"desirable_weight=2"}), 0.5 * (2 + 3) / 4, 1e-14);
  EXPECT_NEAR(loss(e, "kto", {"loss_type=apo_zero_unpaired"}), 0.5, 1e-14);
}

TEST(KtoHand, OtherLabelsAndWeightsMirrorIt) {
  AnswerStep s = labelled();
  AnswerStep mirrored = s;
  for (AnswerRow& r : mirrored.rows) {
    r.label = 1 - r.label;
    std::swap(r.lp, r.ref);
  }
  EXPECT_NEAR(loss(s, "kto", {"desirable_weight=1.5", "undesirable_weight=0.5"}),
              loss(mirrored, "kto", {"desirable_weight=0.5", "undesirable_weight=1.5"}), 1e-14);
}

TEST(BcoHand, ValuesOfFourAnswers) {
  AnswerStep s = labelled();
  s.baseline = 0.02;
  const AnswerRun run = run_answers(answer_loss("bco").build(), s.batch());
  const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
  const double want = softplus(-0.05 + 0.02) + softplus(0.01 + 0.02) + softplus(-0.03 - 0.02) +
                      softplus(0.01 - 0.02);
  EXPECT_NEAR(run.loss, want / 4, 1e-14);
  EXPECT_NEAR(run.metrics.at("delta"), 0.02, 1e-15);
  EXPECT_NEAR(run.dlp[0], -0.1 * sigmoid(-0.05 + 0.02) / 4, 1e-15);
  AnswerStep e = equal();
  e.rows[0].label = 1;
  EXPECT_NEAR(loss(e, "bco"), kLog2, 1e-14);
}

TEST(CpoHand, ValuesOfTwoPairs) {
  const AnswerStep s = worked();
  EXPECT_NEAR(loss(s, "cpo", {"cpo_alpha=0"}), 0.6637969199, 6e-11);
  EXPECT_NEAR(loss(s, "cpo", {"cpo_alpha=0.5"}), 0.6637969199 + 0.5 * 0.74, 6e-11);
  EXPECT_NEAR(loss(s, "simpo", {"beta=2", "simpo_gamma=0.5"}), 0.6867051312, 6e-11);
}

TEST(Simpo, IsAValueOfCpo) {
  const auto run = [](const char* method, const std::vector<std::string>& settings) {
    return run_answers(answer_loss(method, settings).build(), worked().batch());
  };
  const AnswerRun a = run("simpo", {"beta=2.5", "simpo_gamma=0.7", "label_smoothing=0.1"});
  const AnswerRun b = run("cpo", {"loss_type=simpo", "cpo_alpha=0", "beta=2.5", "simpo_gamma=0.7",
                                  "label_smoothing=0.1"});
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.dlp, b.dlp);
  EXPECT_EQ(a.metrics, b.metrics);
  // The gradient: -beta sg(-(beta D - gamma)) over the pairs, a token 1 / n of it. With gamma 0 it
  // is CPO's on token means.
  const AnswerRun c = run("simpo", {"beta=2", "simpo_gamma=0.5"});
  const double d = -2.2 / 3 + 2.4 / 2;
  EXPECT_NEAR(c.dlp[0], -2 * sigmoid(-(2 * d - 0.5)) / 2 / 3, 1e-14);
}

TEST(OrpoHand, ValuesOfTwoPairs) {
  AnswerStep s = worked();
  s.rows[0].prompt = {-2.0, -1.0};
  s.rows[2].prompt = {-0.5};
  s.rows[1].prompt = {-70};  // Not the preferred answer's: nobody reads it.
  const AnswerRun run = run_answers(answer_loss("orpo").build(), s.batch());
  const double nll = (2.2 + 1.5 + 3.5) / 8;
  EXPECT_NEAR(run.loss, nll + 0.0501299535, 6e-11);
  EXPECT_NEAR(run.metrics.at("nll_loss"), nll, 1e-14);
  EXPECT_NEAR(run.metrics.at("log_odds_chosen"), (0.7627980061 + 0.1524681332) / 2, 6e-11);
  EXPECT_NEAR(run.metrics.at("log_odds_ratio"), -0.501299535, 6e-10);
  expect_near(run.dprompt, {-0.125, -0.125, -0.125}, 1e-14, "dprompt");
}

TEST(OrpoHand, CertaintyStaysFinite) {
  AnswerStep s;
  s.rows = {{.lp = {0, 0}}, {.lp = {0}}, {.lp = {-1e-9}}, {.lp = {-900}}};
  const AnswerRun run = run_answers(answer_loss("orpo").build(), s.batch());
  EXPECT_TRUE(std::isfinite(run.loss));
  for (const double g : run.dlp) EXPECT_TRUE(std::isfinite(g));
  // o = 0 in the first pair: log 2. The second pair's odds are sky-high: 0.
  EXPECT_NEAR(run.loss, 0.1 * kLog2 / 2, 1e-8);
}

TEST(SftHand, DftScalesGradientsByProbability) {
  AnswerStep s;
  s.rows = {{.lp = {std::log(0.5), std::log(0.1)}, .mask = {1, 1}},
            {.lp = {std::log(0.8), -1}, .mask = {1, 0}}};
  const AnswerRun nll = run_answers(answer_loss("sft").build(), s.batch());
  const AnswerRun dft = run_answers(answer_loss("sft", {"loss_type=dft"}).build(), s.batch());
  EXPECT_NEAR(nll.loss, -std::log(0.5 * 0.1 * 0.8) / 3, 1e-14);
  expect_near(nll.dlp, {-1.0 / 3, -1.0 / 3, -1.0 / 3, 0}, 1e-14, "nll");
  expect_near(dft.dlp, {-0.5 / 3, -0.1 / 3, -0.8 / 3, 0}, 1e-14, "dft");
  EXPECT_EQ(nll.metrics, dft.metrics);
  EXPECT_NEAR(nll.metrics.at("nll_loss"), nll.loss, 1e-15);
}

TEST(XpoHand, ExploresAwayFromTheReference) {
  AnswerStep s = worked();
  s.rows[0].label = 1;  // The policy's answer won,
  s.rows[3].label = 1;  // then lost.
  const AnswerRun run =
      run_answers(answer_loss("xpo", {"alpha=0.5", "beta=0.1"}).build(), s.batch());
  // The reference's answers are those of -2.4 and -1.5.
  EXPECT_NEAR(run.loss, 0.6785720735 + 0.5 * (-2.4 - 1.5) / 2, 6e-11);
  EXPECT_NEAR(run.metrics.at("loss/dpo"), 0.6785720735, 6e-11);
  EXPECT_NEAR(run.metrics.at("loss/xpo"), -0.975, 1e-14);
  EXPECT_NEAR(run.dlp[3], 0.0240005330 + 0.25, 6e-11);
}

TEST(NashMdHand, RaisesWhatWins) {
  AnswerStep s;
  s.rows = {{.lp = {-1, -2}, .ref = {-1.5, -1}, .label = 0.75}, {.lp = {-3}, .ref = {-3}}};
  const AnswerRun run = run_answers(answer_loss("nash_md", {"beta=0.2"}).build(), s.batch());
  // 0.2 (0.5 x -1 - 1 x -2) - 0.25 x -3 = 1.05; then -(-0.5) x -3 = -1.5.
  EXPECT_NEAR(run.loss, (1.05 - 1.5) / 2, 1e-14);
  expect_near(run.dlp, {(0.1 - 0.25) / 2, (-0.2 - 0.25) / 2, 0.25}, 1e-14, "dlp");
  EXPECT_NEAR(run.metrics.at("loss/kl"), -0.25, 1e-14);
  EXPECT_NEAR(run.metrics.at("rewards/probabilities"), 0.375, 1e-15);
}

}  // namespace
}  // namespace temper
