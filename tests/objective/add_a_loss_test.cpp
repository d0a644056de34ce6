// The loss that docs/add_a_loss.md walks through. The part between the markers is shown there.
#include <gtest/gtest.h>

#include <cmath>

#include "rollout_case.h"
#include "temper/core/file.h"

// [shown: the loss]
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/where.h>

#include "temper/core/error.h"
#include "temper/objective/policy_loss.h"
#include "temper/objective/rollout_objectives.h"

namespace temper {

/// Tapered REINFORCE (Le Roux et al. 2025): good completions are followed whatever the ratio, bad
/// ones are pushed away only as far as the current policy still makes them.
///
/// `loss = 1/N sum_i sum_t -stop(A > 0 ? 1 : min(w, cap)) A lp`.
class TaperedReinforce {
 public:
  struct Config : PolicyLossConfig {
    double cap = 1;
    template <class V>
    void visit(V&& v) {
      v(cap, "cap", "Largest weight of a token with A <= 0, positive.");
      PolicyLossConfig::visit(v);
    }
  };
  using Batch = RolloutBatch;

  explicit TaperedReinforce(const Config& config) : terms_(config), cap_(config.cap) {
    TEMPER_CHECK(cap_ > 0, "[tapered] cap must be positive, got ", cap_);
  }

  LossOutput operator()(const RolloutBatch& batch) const {
    const PolicyTokens t = policy_tokens(batch);
    const ImportanceRatio ratio = importance_ratio(t, terms_.level);
    const at::Tensor capped = at::clamp_max(ratio.tokens.detach(), cap_);
    const at::Tensor weight = at::where(t.advantages > 0, 1.0, capped);

    MetricTensors metrics;
    metrics.add_token_mean("tapered/weight", t, weight);
    return policy_loss(t, terms_, ratio, -weight * t.advantages * t.logprobs, &token_mean,
                       std::move(metrics));
  }

 private:
  PolicyTerms terms_;
  double cap_;
};
static_assert(RolloutLossType<TaperedReinforce>);

}  // namespace temper
// [end]

namespace temper {
namespace {

// [shown: the table]
std::vector<RolloutObjectiveEntry> losses_with_ours() {
  std::vector<RolloutObjectiveEntry> table = rollout_objectives();
  table.push_back(rollout_objective<TaperedReinforce>("tapered", "REINFORCE, tapered off-policy."));
  return table;
}

RolloutObjective tapered_with_cap(const std::string& cap) {
  RolloutLoss loss("tapered", losses_with_ours());
  config_set(config_fields(loss), "cap=" + cap);
  config_set(config_fields(loss), "kl_coef=0.04");
  return loss.build();
}
// [end]

// [shown: the test]
TEST(TaperedReinforce, GradientIsTheWeightTimesTheAdvantage) {
  PaddedRollout r{.rows = 2, .width = 2, .length = {2, 1},
                  .lp = {-1.0, -0.5, -0.25, 0}, .old = {-1.5, -0.25, -0.75, 0}, .ref = {},
                  .entropy = {}, .mask = {1, 1, 1, 0}, .advantages = {0.5, -2.0}};
  const LossRun run = run_loss(TaperedReinforce{{}}, r.batch());
  EXPECT_DOUBLE_EQ(run.dlp[0], -0.5 / 3);  // A > 0: weight 1
  EXPECT_DOUBLE_EQ(run.dlp[2], 2.0 / 3);   // A < 0 and w = e^0.5: weight 1, the cap
  r.old[2] = 0.75;
  EXPECT_DOUBLE_EQ(run_loss(TaperedReinforce{{}}, r.batch()).dlp[2], 2.0 / 3 * std::exp(-1.0));
}
// [end]

TEST(TaperedReinforce, IsBuiltByNameWithItsSettings) {
  const PaddedRollout r = golden_rollout("plain");
  const LossRun low = run_loss(tapered_with_cap("0.5"), r.batch());
  const LossRun high = run_loss(tapered_with_cap("100"), r.batch());
  EXPECT_LT(low.metrics.at("tapered/weight"), high.metrics.at("tapered/weight"));
  EXPECT_TRUE(low.metrics.contains("kl"));
}

TEST(AddALossPage, ShowsThisFile) {
  const std::string root = std::string(TEMPER_SOURCE_DIR) + "/";
  const std::string source = read_text_file(root + "tests/objective/add_a_loss_test.cpp");
  const std::string page = read_text_file(root + "docs/add_a_loss.md");
  int shown = 0;
  for (size_t at = source.find("// [shown: "); at != std::string::npos;
       at = source.find("// [shown: ", at + 1)) {
    if (at != 0 && source[at - 1] != '\n') continue;
    const size_t begin = source.find('\n', at) + 1;
    const size_t end = source.find("// [end]\n", begin);
    ASSERT_NE(end, std::string::npos);
    const std::string part = source.substr(begin, end - begin);
    EXPECT_NE(page.find("```cpp\n" + part + "```"), std::string::npos)
        << "docs/add_a_loss.md does not hold this part as it stands here:\n" << part;
    ++shown;
  }
  EXPECT_EQ(shown, 3);
}

}  // namespace
}  // namespace temper
