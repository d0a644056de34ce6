// PPO's parts against verl, torchtune, TRL's RLOO and an explicit double sum; see
// tests/golden/make_ppo.py.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "ppo_case.h"
#include "rollout_case.h"
#include "temper/core/file.h"
#include "temper/objective/gae.h"
#include "temper/objective/kl_controller.h"
#include "temper/objective/ppo.h"
#include "temper/objective/reinforce_pp.h"
#include "temper/objective/remax.h"
#include "temper/objective/value_loss.h"

namespace temper {
namespace {

using nlohmann::ordered_json;

std::string folder() { return concat(TEMPER_SOURCE_DIR, "/tests/golden/ppo/"); }

const ordered_json& manifest() {
  static const ordered_json json = ordered_json::parse(read_text_file(folder() + "manifest.json"));
  return json;
}

/// One set of inputs: six rows in groups of two.
struct Data {
  Data(const SafetensorsFile& f, const std::string& name) : file(f), prefix(name + "/") {
    const TensorView& view = file.at(prefix + "length");
    shape.length.resize(6);
    std::memcpy(shape.length.data(), view.data.data(), view.data.size());
    shape.rows = 6;
    shape.width = 10;
  }
  [[nodiscard]] std::vector<double> rows(const char* name) const {
    return doubles(file.at(prefix + name));
  }
  [[nodiscard]] std::vector<double> tokens(const char* name) const {
    return shape.flat(rows(name));
  }
  template <class T>
  [[nodiscard]] static std::vector<T> as(const std::vector<double>& x) {
    std::vector<T> out;
    for (const double v : x) out.push_back(static_cast<T>(v));
    return out;
  }
  [[nodiscard]] TokenCase token_case(double kl_coef) const {
    TokenCase c;
    c.tokens.offsets = {0};
    for (const int64_t n : shape.length) c.tokens.offsets.push_back(c.tokens.offsets.back() + n);
    c.tokens.mask = as<uint8_t>(tokens("mask"));
    c.tokens.old_logprobs = as<float>(tokens("old"));
    c.tokens.ref_logprobs = as<float>(tokens("ref"));
    c.tokens.values = as<float>(tokens("values"));
    c.tokens.bootstrap_values = as<float>(rows("bootstrap"));
    c.tokens.truncated = as<uint8_t>(rows("truncated"));
    c.tokens.greedy_scores = rows("greedy");
    c.tokens.kl_coef = kl_coef;
    c.scores = rows("scores");
    c.group_size = 2;
    return c;
  }
  [[nodiscard]] PaddedRollout rollout() const {
    PaddedRollout r = shape;
    r.lp = rows("lp");
    r.old = rows("old");
    r.mask = rows("mask");
    r.advantages = rows("advantages");
    return r;
  }
  [[nodiscard]] ValueBatch values() const {
    const auto read = [&](const char* name) { return at::tensor(tokens(name), at::kDouble); };
    ValueBatch b;
    b.values = read("new_values").set_requires_grad(true);
    b.old_values = read("values");
    b.returns = read("returns");
    b.mask = read("mask");
    b.totals = rollout().batch().totals;
    return b;
  }

  const SafetensorsFile& file;
  std::string prefix;
  PaddedRollout shape;
};

template <class T>
void expect_close(const std::vector<T>& got, const std::vector<double>& want, double tolerance,
                  const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], tolerance * std::max(1.0, std::abs(want[i]))) << what << " " << i;
  }
}

/// An estimator with the case's settings; keys that it does not know are an error.
template <class Estimator>
AdvantageEstimator configured(const ordered_json& settings) {
  typename Estimator::Config config;
  ordered_json own = settings;
  own.erase("kl_coef");
  config_from_json(config_fields(config), own, "golden");
  return Estimator(config);
}

AdvantageEstimator estimator_of(const ordered_json& c) {
  const std::string kind = c["kind"];
  if (kind == "gae") return configured<Gae>(c["settings"]);
  if (kind == "reinforce_pp") return configured<ReinforcePp>(c["settings"]);
  if (kind == "reinforce_pp_baseline") return configured<ReinforcePpBaseline>(c["settings"]);
  if (kind == "remax") return configured<ReMax>(c["settings"]);
  return find_advantage(kind);
}

bool is_loss(const ordered_json& c) {
  return c["kind"] == "policy" || c["kind"] == "value" || c["kind"] == "both";
}

TEST(GoldenPpo, AdvantagesAndReturns) {
  const auto file = SafetensorsFile::open(folder() + "data.safetensors");
  std::map<std::string, int> kinds;
  for (const ordered_json& c : manifest()["cases"]) {
    if (is_loss(c)) continue;
    const std::string kind = c["kind"], name = c["name"];
    SCOPED_TRACE(name + " " + kind + " " + c["settings"].dump());
    ++kinds[kind];
    const Data data(file, c["data"]);
    TokenCase tokens = data.token_case(c["settings"]["kl_coef"]);
    const Advantages a = estimator_of(c)(tokens.table());
    if (kind.starts_with("rloo")) {
      expect_close(a.values, doubles(file.at(name + "/rows")), 2e-6, "advantages");
      EXPECT_NEAR(a.reward_mean, c["scalars"]["reward"], 1e-6);
      EXPECT_NEAR(a.reward_std, c["scalars"]["reward_std"], 1e-6);
      EXPECT_EQ(a.frac_reward_zero_std, c["scalars"]["frac_reward_zero_std"].get<double>());
      continue;
    }
    const auto flat = [&](const char* what) {
      return data.shape.flat(doubles(file.at(concat(name, "/", what))));
    };
    expect_close(a.tokens, flat("advantages"), 1e-6, "advantages");
    if (kind == "gae") expect_close(a.returns, flat("returns"), 1e-6, "returns");
  }
  EXPECT_GE(kinds["gae"], 20);
  for (const char* kind : {"reinforce_pp", "reinforce_pp_baseline", "remax", "rloo",
                           "rloo_normalized"}) {
    EXPECT_GE(kinds[kind], 1) << kind;
  }
}

LossRun policy_run(const Data& data, const ordered_json& settings) {
  Ppo::Config config;
  config.clip_low = settings["clip_low"];
  config.clip_high = settings["clip_high"];
  config.dual_clip = settings.value("dual_clip", -1.0);
  return run_loss(Ppo(config), data.rollout().batch());
}

struct ValueRun {
  double loss;
  std::vector<double> dvalues;
  Metrics metrics;
};

ValueRun value_run(const Data& data, const ordered_json& settings) {
  const ValueBatch b = data.values();
  const LossOutput out =
      value_loss(b, {.clip = settings["clip"], .coef = settings.value("coef", 1.0)});
  out.loss.backward();
  ValueRun run{out.loss.item<double>(), to_vector(b.values.grad()), {}};
  out.metrics.write_to(run.metrics);
  return run;
}

TEST(GoldenPpo, LossesGradientsAndMetrics) {
  const auto file = SafetensorsFile::open(folder() + "data.safetensors");
  int cases = 0;
  for (const ordered_json& c : manifest()["cases"]) {
    if (!is_loss(c)) continue;
    const std::string kind = c["kind"], name = c["name"];
    SCOPED_TRACE(name + " " + kind + " " + c["settings"].dump());
    ++cases;
    const Data data(file, c["data"]);
    double loss = 0;
    Metrics metrics;
    // torchtune adds 1e-8 to the number of tokens.
    const double tolerance = kind == "both" ? 1e-8 : 1e-10;
    if (kind != "value") {
      const LossRun run = policy_run(data, c["settings"]);
      loss += run.loss;
      metrics.insert(run.metrics.begin(), run.metrics.end());
      expect_close(run.dlp, data.shape.flat(doubles(file.at(name + "/dlp"))), 10 * tolerance,
                   "dlp");
    }
    if (kind != "policy") {
      const ValueRun run = value_run(data, c["settings"]);
      loss += run.loss;
      metrics.insert(run.metrics.begin(), run.metrics.end());
      expect_close(run.dvalues, data.shape.flat(doubles(file.at(name + "/dvalues"))),
                   10 * tolerance, "dvalues");
    }
    for (const auto& [key, value] : c["scalars"].items()) {
      if (key == "loss") {
        EXPECT_NEAR(loss, value.get<double>(), tolerance * std::max(1.0, std::abs(loss)));
      } else {  // verl takes shares through float32.
        ASSERT_TRUE(metrics.contains(key)) << key;
        EXPECT_NEAR(metrics.at(key), value.get<double>(), 1e-6) << key;
      }
    }
  }
  EXPECT_GE(cases, 14);
}

TEST(GoldenPpo, AdaptiveController) {
  KlControllerConfig config;
  config.kind = "adaptive";
  KlController controller(config, 0.2);
  ASSERT_GE(manifest()["adaptive_kl"].size(), 6u);
  for (const ordered_json& step : manifest()["adaptive_kl"]) {
    controller.update(step["kl"], step["sequences"]);
    EXPECT_DOUBLE_EQ(controller.coef(), step["coef"].get<double>());
  }
}

}  // namespace
}  // namespace temper
