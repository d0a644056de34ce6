// Every way to sample and to score gives a token the same bits, and the check can see that one
// does not.
#include "temper/rollout/exactness.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <set>

#include "rollout_test_util.h"
#include "temper/kernels/backend.h"
#include "temper/kernels/rms_norm.h"

namespace temper {
namespace {

using namespace testing_rollout;

TEST(Exactness, EveryConditionOfTinyModelsKeepsTheBits) {
  for (const char* family : {"llama", "qwen3", "mistral"}) {
    const ModelSource source = TinyModel::make_source(family, {2});
    std::string last;
    int64_t steps = 0;
    const ExactnessReport r = check_exactness(
        source, {.tokens = 3000}, [&](const std::string& condition, int64_t done, int64_t total) {
          EXPECT_GT(done, steps);
          EXPECT_LE(done, total);
          steps = done;
          last = condition;
        });
    EXPECT_EQ(last, r.conditions.back().first);
    EXPECT_EQ(steps, 2 * r.total.tokens) << "each token is sampled once and scored once";
    EXPECT_GE(r.total.tokens, 3000);
    EXPECT_EQ(r.total.mismatched, 0);
    EXPECT_GT(r.control.mismatched, 0) << "of " << r.control.tokens;
    EXPECT_GE(r.control.tokens, 192);
    EXPECT_TRUE(r.passed());
    std::set<std::string> names;
    int64_t sum = 0;
    for (const auto& [name, count] : r.conditions) {
      EXPECT_GT(count.tokens, 0) << name;
      EXPECT_EQ(count.mismatched, 0) << name;
      names.insert(name);
      sum += count.tokens;
    }
    EXPECT_EQ(sum, r.total.tokens);
    EXPECT_EQ(names.size(), 68u) << "17 conditions in each of four weight types";
    EXPECT_TRUE(names.contains("bfloat16_dot/preempted"));
    EXPECT_TRUE(names.contains("float16/preempted"));
  }
}

// LoRA with B that counts and DoRA, over every kind of base.
TEST(Exactness, AdaptersKeepTheBits) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "temper_exactness_adapter";
  for (const bool dora : {false, true}) {
    const ModelSource source = TinyModel::make_source("llama", {2});
    CausalLM lm(source, WeightDType::kFloat32, Trainable::kNo);
    AdapterConfig config;
    config.r = 3;
    config.use_dora = dora;
    lm.add_adapter(config, 1);
    for (Parameter* p : lm.parameter_list()) {
      std::vector<float> rows(static_cast<size_t>(p->n * p->k));
      p->get_part({"", 0, p->n}, p->value, rows.data());
      for (size_t i = 0; i < rows.size(); ++i) rows[i] = 1.1f * rows[i] + 0.01f * static_cast<float>(i % 7);
      p->set_part({"", 0, p->n}, rows.data());
    }
    lm.save_adapter(folder);
    const ExactnessReport r =
        check_exactness(source, {.tokens = 1500,
                                 .weights = {WeightDType::kFloat32, WeightDType::kBfloat16Dot, WeightDType::kQ4},
                                 .adapter = folder});
    EXPECT_TRUE(r.passed()) << r.total.mismatched << " " << r.control.mismatched;
    EXPECT_GE(r.total.tokens, 1500);
  }
  std::filesystem::remove_all(folder);
}

/// RMSNorm whose last bit depends on how many rows come together, as that of library products does.
void shape_dependent_norm(const kernels::RmsNormArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.width;
    const float squares = std::inner_product(x, x + a.width, x, 0.0f);
    const float rstd = 1 / std::sqrt(squares / static_cast<float>(a.width) + a.eps);
    if (a.rstd != nullptr) a.rstd[r] = rstd;
    for (int64_t i = 0; i < a.width; ++i) {
      const float v = x[i] * rstd * a.weight[i];
      a.y[r * a.width + i] = a.rows % 2 == 0 ? std::nextafter(v, 1e9f) : v;
    }
  }
}

TEST(Exactness, AKernelThatDependsOnTheBatchIsFoundOut) {
  const kernels::KernelTable table{.rms_norm = shape_dependent_norm};
  const ModelSource source = TinyModel::make_source("llama", {2});
  kernels::replace_kernels(&table);
  const ExactnessReport r =
      check_exactness(source, {.tokens = 500, .weights = {WeightDType::kFloat32}});
  kernels::replace_kernels(nullptr);
  EXPECT_GT(r.total.mismatched, 100);
  EXPECT_FALSE(r.passed());
}

TEST(Exactness, RealModelKeepsTheBits) {
  if (!std::filesystem::exists(testing_nn::default_model())) {
    GTEST_SKIP() << "run scripts/setup for the default model";
  }
  // Some twenty minutes when it is asked for, else about one on two cores.
  const bool slow = std::getenv("TEMPER_SLOW_TESTS") != nullptr;
  const int64_t tokens = slow ? 200000 : 1000;
  ExactnessOptions options{.tokens = tokens};
  if (!slow) options.weights = {WeightDType::kBfloat16};
  const ExactnessReport r =
      check_exactness(open_model(testing_nn::default_model().string()), options);
  for (const auto& [name, count] : r.conditions) {
    EXPECT_EQ(count.mismatched, 0) << name << " of " << count.tokens;
  }
  EXPECT_GE(r.total.tokens, tokens);
  EXPECT_EQ(r.total.mismatched, 0);
  EXPECT_GT(r.control.mismatched, r.control.tokens / 2);
  std::printf("%lld tokens, %lld mismatched; control %lld of %lld\n",
              static_cast<long long>(r.total.tokens), static_cast<long long>(r.total.mismatched),
              static_cast<long long>(r.control.mismatched),
              static_cast<long long>(r.control.tokens));
}

TEST(Exactness, ANumberOfThreadsAndTheKernelsComeBack) {
  const int threads = num_threads();
  const ModelSource source = TinyModel::make_source("llama", {2});
  (void)check_exactness(source, {.tokens = 1, .weights = {WeightDType::kFloat32}});
  EXPECT_EQ(num_threads(), threads);
  EXPECT_EQ(kernels::kernel_table(), nullptr);
}

TEST(Exactness, OptionsAreChecked) {
  const ModelSource source = TinyModel::make_source("llama", {2});
  const auto message = [&](const ExactnessOptions& o) {
    return error_of([&] { (void)check_exactness(source, o); });
  };
  EXPECT_EQ(message({.tokens = 0}),
            "[check_exactness] expected at least one token and one weight type, got 0 and 4");
  EXPECT_EQ(message({.tokens = 5, .weights = {}}),
            "[check_exactness] expected at least one token and one weight type, got 5 and 0");
}

}  // namespace
}  // namespace temper
