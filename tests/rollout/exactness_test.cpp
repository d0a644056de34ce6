// Every way to sample and to score gives a token the same bits, and the check can see that one
// does not.
#include "temper/rollout/exactness.h"

#include <cmath>
#include <set>

#include "rollout_test_util.h"
#include "temper/ops/reference.h"

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
    EXPECT_EQ(names.size(), 51u) << "17 conditions in each of three weight types";
    EXPECT_TRUE(names.contains("bfloat16_dot/preempted"));
  }
}

/// SwiGLU whose last bit depends on how many rows come together, as that of library products does.
void shape_dependent_swiglu(const float* gate_up, float* y, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < width; ++i) {
      const float g = gate_up[r * 2 * width + i];
      const float v = g / (1 + std::exp(-g)) * gate_up[r * 2 * width + width + i];
      y[r * width + i] = rows % 2 == 0 ? std::nextafter(v, 1e9f) : v;
    }
  }
}

TEST(Exactness, AKernelThatDependsOnTheBatchIsFoundOut) {
  const kernels::KernelTable table{.swiglu = shape_dependent_swiglu};
  const ModelSource source = TinyModel::make_source("llama", {2});
  kernels::replace_kernels(&table);
  const ExactnessReport r =
      check_exactness(source, {.tokens = 500, .weights = {WeightDType::kFloat32}});
  kernels::replace_kernels(nullptr);
  EXPECT_GT(r.total.mismatched, 100);
  EXPECT_FALSE(r.passed());
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
            "[check_exactness] expected at least one token and one weight type, got 0 and 3");
  EXPECT_EQ(message({.tokens = 5, .weights = {}}),
            "[check_exactness] expected at least one token and one weight type, got 5 and 0");
}

}  // namespace
}  // namespace temper
