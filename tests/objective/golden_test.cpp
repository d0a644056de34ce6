// Losses and advantages against TRL 1.16.0; see tests/golden/make_objectives.py.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "rollout_case.h"
#include "temper/core/file.h"
#include "temper/objective/advantage.h"
#include "temper/objective/entropy.h"
#include "temper/objective/rollout_objectives.h"

namespace temper {
namespace {

using nlohmann::ordered_json;

const ordered_json& manifest() {
  static const ordered_json json =
      ordered_json::parse(read_text_file(golden_folder() + "manifest.json"));
  return json;
}

void expect_close(double got, double want, double tolerance, const std::string& what) {
  EXPECT_LE(std::abs(got - want), tolerance * std::max(1.0, std::abs(want)))
      << what << ": got " << got << ", want " << want;
}

void expect_close(const std::vector<double>& got, const std::vector<double>& want,
                  double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    expect_close(got[i], want[i], tolerance, concat(what, "[", i, "]"));
  }
}

RolloutObjective objective_of(const ordered_json& c) {
  const std::string loss = c["loss"];
  RolloutLoss settings(loss);
  ordered_json j{{"name", loss},
                 {"importance_level", c["level"]},
                 {"kl_coef", c["beta"]},
                 {"kl_bias_correction", c["bias_correction"]},
                 {"entropy_coef", c["entropy_coef"]}};
  if (!c["off_policy"].is_null()) j["off_policy_threshold"] = c["off_policy"];
  if (!c["delta"].is_null()) j["delta"] = c["delta"];
  if (loss == "cispo") {
    j["ratio_max"] = c["clip_high"];
  } else if (loss != "sapo" && loss != "vespo") {
    j["clip_low"] = c["clip_low"];
    j["clip_high"] = c["clip_high"];
  }
  config_from_json(config_fields(settings), j, "golden");
  return settings.build();
}

PaddedRollout rollout_of(const ordered_json& c) {
  PaddedRollout r = golden_rollout(c["data"]);
  if (!c["old"]) r.old.clear();
  if (c["beta"] == 0.0) r.ref.clear();
  return r;
}

/// The totals that a trainer would set for the case.
void set_entropy_cut(const ordered_json& c, const PaddedRollout& r, StepTotals& totals) {
  if (c["entropy_threshold"].is_null()) return;
  const std::vector<double> h = r.flat(r.entropy);
  const std::vector<double> m = r.flat(r.mask);
  const EntropyCut cut = entropy_threshold(std::span<const double>(h), std::span<const double>(m),
                                           c["entropy_quantile"].get<double>());
  expect_close(cut.threshold, c["entropy_threshold"], 1e-6, "entropy threshold");
  totals.entropy_threshold = cut.threshold;
  totals.entropy_tokens = static_cast<double>(cut.tokens);
}

struct Tolerance {
  double loss, gradient;
};

void run_all_losses(at::ScalarType dtype, Tolerance tolerance) {
  for (const ordered_json& c : manifest()["losses"]) {
    const std::string name = c["loss"].get<std::string>() + "/" + c["name"].get<std::string>();
    SCOPED_TRACE(name);
    const auto file = SafetensorsFile::open(golden_folder() + c["file"].get<std::string>());
    const PaddedRollout r = rollout_of(c);
    RolloutBatch b = r.batch(dtype);
    set_entropy_cut(c, r, b.totals);
    const LossRun run = run_loss(objective_of(c), b);

    expect_close(run.loss, c["value"], tolerance.loss, "loss");
    const std::string prefix = c["name"];
    expect_close(run.dlp, r.flat(doubles(file.at(prefix + "/dlp"))), tolerance.gradient, "dlp");
    ASSERT_EQ(!run.dentropy.empty(), file.has(prefix + "/dentropy"));
    if (!run.dentropy.empty()) {
      expect_close(run.dentropy, r.flat(doubles(file.at(prefix + "/dentropy"))),
                   tolerance.gradient, "dentropy");
    }
    for (const auto& [metric, value] : c["metrics"].items()) {
      if (metric == "entropy_coef") continue;  // The trainer's own.
      ASSERT_TRUE(run.metrics.contains(metric)) << metric;
      // TRL takes metrics through float32.
      expect_close(run.metrics.at(metric), value, 2e-6, metric);
    }
  }
}

TEST(GoldenLosses, Float64) { run_all_losses(at::kDouble, {1e-10, 1e-9}); }
TEST(GoldenLosses, Float32) { run_all_losses(at::kFloat, {2e-6, 1e-5}); }

TEST(GoldenLosses, CoverEveryLossAndSetting) {
  EXPECT_GE(manifest()["losses"].size(), 60u);
  std::map<std::string, int> cases;
  for (const ordered_json& c : manifest()["losses"]) ++cases[c["loss"]];
  for (const RolloutObjectiveEntry& entry : rollout_objectives()) {
    if (entry.name == "gspo") continue;  // TRL has it as settings of grpo.
    if (entry.name == "ppo") continue;   // TRL has none; see ppo_golden_test.
    EXPECT_GE(cases[entry.name], 16) << entry.name;
  }
}

TEST(GoldenLosses, GspoIsSequenceLevelGrpo) {
  const PaddedRollout r = golden_rollout("plain");
  RolloutLoss gspo("gspo");
  config_set(config_fields(gspo), "clip_low=0.2");
  config_set(config_fields(gspo), "clip_high=0.2");
  RolloutLoss grpo("grpo");
  config_set(config_fields(grpo), "importance_level=sequence");
  const LossRun a = run_loss(gspo.build(), r.batch());
  const LossRun b = run_loss(grpo.build(), r.batch());
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.dlp, b.dlp);
}

TEST(GoldenAdvantages, AgreeWithGrpoAndRlooTrainers) {
  const auto file = SafetensorsFile::open(golden_folder() + "advantages.safetensors");
  ASSERT_GE(manifest()["advantages"].size(), 40u);
  for (const ordered_json& c : manifest()["advantages"]) {
    const std::string name = c["name"];
    const std::string estimator = c["estimator"];
    SCOPED_TRACE(name + "/" + estimator);
    RewardTable table{.values = doubles(file.at(name + "/rewards")),
                      .functions = file.at(name + "/rewards").shape.at(1),
                      .group_size = c["group_size"],
                      .weights = doubles(file.at(name + "/weights"))};
    const Advantages a = find_advantage(estimator)(table);
    expect_close(a.values, doubles(file.at(name + "/" + estimator)), 1e-6, "advantages");

    Metrics ours{{"reward", a.reward_mean},
                 {"reward_std", a.reward_std},
                 {"frac_reward_zero_std", a.frac_reward_zero_std}};
    for (size_t k = 0; k < a.function_means.size(); ++k) {
      ours[concat("rewards/f", k, "/mean")] = a.function_means[k];
      ours[concat("rewards/f", k, "/std")] = a.function_stds[k];
    }
    for (const auto& [metric, value] : c["metrics"].items()) {
      ASSERT_TRUE(ours.contains(metric)) << metric;
      if (value.is_null()) {
        EXPECT_TRUE(std::isnan(ours[metric])) << metric;
      } else {
        expect_close(ours[metric], value, 1e-6, metric);
      }
    }
  }
}

TEST(GoldenEntropyThreshold, AgreesWithTorchQuantile) {
  const PaddedRollout r = golden_rollout("plain");
  const std::vector<double> h = r.flat(r.entropy);
  const std::vector<double> m = r.flat(r.mask);
  for (const ordered_json& c : manifest()["entropy_thresholds"]) {
    const EntropyCut cut = entropy_threshold(std::span<const double>(h),
                                             std::span<const double>(m), c["quantile"]);
    EXPECT_EQ(cut.threshold, c["threshold"].get<double>()) << c["quantile"];
    EXPECT_EQ(cut.tokens, c["tokens"].get<int64_t>()) << c["quantile"];
  }
}

}  // namespace
}  // namespace temper
