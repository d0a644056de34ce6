#include <gtest/gtest.h>

#include "cuda/tree_attention.cuh"
#include "kernels/cuda_sim/attention_sim_util.h"

namespace temper::kernels {
namespace {

using namespace attention_case;
using cuda::AttendShape;

/// The emulated kernel, in one order, has the CPU's bits.
void expect_cpu_bits(const Problem& p, const Launch& launch) {
  EXPECT_TRUE(test::identical(run_on_emulator(p, launch), cpu_outputs(p)));
}

/// In all orders.
void expect_cpu_bits_in_all_orders(const Problem& p, const Launch& launch) {
  const Outputs got = test::in_all_orders([&] { return run_on_emulator(p, launch); });
  EXPECT_TRUE(test::identical(got, cpu_outputs(p)));
}

TEST(TreeAttentionSim, HasTheBitsOfTheCpuWhateverTheLength) {
  for (const int64_t length : {1, 31, 33, 65, 130}) {
    for (const int head_dim : {8, 64, 128}) {
      SCOPED_TRACE(testing::Message() << length << " rows, head_dim " << head_dim);
      const Problem p = make_tree({{-1, length}}, {6, 2, head_dim});
      expect_matches_reference(p);  // What the bits are compared with is right.
      expect_cpu_bits(p, launcher(0));
    }
  }
}

TEST(TreeAttentionSim, NoOrderOfThreadsChangesABit) {
  expect_cpu_bits_in_all_orders(make_tree({{-1, 70}, {0, 9}, {0, 3}}, {3, 1, 64}), launcher(0));
  expect_cpu_bits_in_all_orders(make_group(100, 3, {4, 2, 24, 90}), launcher(1));
  expect_cpu_bits_in_all_orders(make_tree({{-1, 66}}, {2, 1, 128}), launcher(0));
  expect_cpu_bits_in_all_orders(make_tree({{-1, 66}}, {2, 1, 136}), launcher(0));
}

TEST(TreeAttentionSim, EveryShapeOfLaunchHasTheSameBits) {
  // A block a row: few rows for ThreadSanitizer.
  using Tree = std::vector<TreeNode>;
  const Tree branches =
      test::tsan_size<Tree>({{-1, 66}, {0, 20}, {0, 7}}, {{-1, 9}, {0, 2}, {0, 1}});
  const Problem narrow = make_tree(branches, {6, 2, 40, 60});
  for (const int64_t rows : {1, 5, 0}) {
    SCOPED_TRACE(rows);
    expect_cpu_bits(narrow, shape_launcher<AttendShape<64, 8, 128, 2>>(rows));
    expect_cpu_bits(narrow, shape_launcher<AttendShape<64, 16, 128, 1>>(rows));
    expect_cpu_bits(narrow, shape_launcher<AttendShape<64, 16, 256, 2>>(rows));
    expect_cpu_bits(narrow, shape_launcher<AttendShape<64, 64, 128, 2>>(rows));
    expect_cpu_bits(narrow, shape_launcher<AttendShape<64, 64, 256, 2>>(rows));
    expect_cpu_bits(narrow, shape_launcher<AttendShape<128, 32, 512, 2>>(rows));
  }
  const Problem wide =
      make_tree(test::tsan_size<Tree>({{-1, 70}, {0, 3}}, {{-1, 5}, {0, 3}}), {4, 2, 200});
  expect_cpu_bits(wide, shape_launcher<AttendShape<256, 16, 128, 1>>());
  expect_cpu_bits(wide, shape_launcher<AttendShape<256, 16, 256, 2>>(1));
}

TEST(TreeAttentionSim, TreesWithWindowsHaveTheBitsOfTheCpu) {
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{4, 4, 32}, Shape{9, 3, 64, 5},
                             Shape{2, 1, 8, 64}, Shape{3, 1, 256}, Shape{7, 1, 40, 50}}) {
    SCOPED_TRACE(testing::Message() << shape.heads << " " << shape.head_dim << " " << shape.window);
    expect_cpu_bits(make_tree(kThreeLevels, shape), launcher(0));
  }
}

TEST(TreeAttentionSim, DecodesGroupsBehindAPromptOverPages) {
  for (const int64_t window : {0, 100}) {
    for (const int64_t rows_per_list : {1, 0}) {
      expect_cpu_bits(make_group(200, 6, {9, 3, 64, window}), launcher(rows_per_list));
    }
  }
}

TEST(TreeAttentionSim, SplitsQueryHeadsThatDoNotFitOneBlock) {
  expect_cpu_bits(make_tree({{-1, 33}}, {21, 1, 16}), launcher(1));
  expect_cpu_bits(make_tree({{-1, 3}}, {130, 2, 8}), launcher(0));
}

TEST(TreeAttentionSim, ReadsArraysThatAreNotAligned) {
  const Problem p = make_tree({{-1, 40}, {0, 5}}, {4, 2, 24});
  EXPECT_TRUE(test::identical(run_on_emulator(p, launcher(0), 3), cpu_outputs(p)));
}

TEST(TreeAttentionSim, LargeScoresHaveTheBitsOfTheCpu) {
  Problem p = make_tree({{-1, 100}}, {2, 1, 16});
  for (float& x : p.q) x *= 200.0f;
  expect_cpu_bits(p, launcher(0));
}

TEST(TreeAttentionSim, KeysThatARowDoesNotSeeAreNeverAdded) {
  Problem p = make_tree({{-1, 70}, {0, 30}, {0, 30}}, {4, 2, 16, 50});
  // Unseen keys lie in the blocks of seen ones: behind a row, before its window, in pages.
  for (const int64_t row : {20, 85}) {
    for (int i = 0; i < 16; ++i)
      p.v[row * p.kv_width() + i] = NAN, p.k[row * p.kv_width() + i] = NAN;
  }
  const auto [out, lse] = run_on_emulator(p, launcher(0));
  for (int64_t row = 0; row < p.rows(); ++row) {
    const auto keys = p.keys_of(row);
    const bool sees =
        std::count(keys.begin(), keys.end(), 20) + std::count(keys.begin(), keys.end(), 85);
    EXPECT_EQ(std::isnan(out[row * p.q_width()]), sees) << row;
    EXPECT_EQ(std::isnan(lse[row * 4]), sees) << row;
    EXPECT_FALSE(std::isnan(out[row * p.q_width() + 2 * 16])) << row;  // The other key head.
  }
}

TEST(TreeAttentionSim, RefusesSizesBeforeItLaunches) {
  Problem p = make_tree({{-1, 4}}, {2, 1, 8});
  std::vector<float> out, lse;
  const auto code = [&](const auto& change) {
    TreeAttentionArgs a = p.args(out, lse);
    change(a);
    return cuda::launch_tree_attention(a, 0, nullptr).code;
  };
  EXPECT_EQ(code([](TreeAttentionArgs& a) { a.head_dim = 12; }), cuda::kInvalidArgument);
  EXPECT_EQ(code([](TreeAttentionArgs& a) { a.head_dim = 264; }), cuda::kInvalidArgument);
  EXPECT_EQ(code([](TreeAttentionArgs& a) { a.kv_heads = 3; }), cuda::kInvalidArgument);
  EXPECT_EQ(code([](TreeAttentionArgs& a) { a.scale = 0; }), cuda::kInvalidArgument);
  EXPECT_EQ(code([](TreeAttentionArgs& a) { a.window = -1; }), cuda::kInvalidArgument);
  EXPECT_EQ(code([](TreeAttentionArgs& a) { a.queries = {}; }), 0);  // Nothing to do.
}

TEST(TreeAttentionSim, TilesFitTheSharedMemoryOfEverySupportedDevice) {
  const size_t smallest = 99 * 1024;  // sm_86 and sm_89
  EXPECT_LE((cuda::AttendShared<AttendShape<64, 64, 128, 2>>::bytes()), smallest);
  EXPECT_LE((cuda::AttendShared<AttendShape<128, 32, 128, 2>>::bytes()), smallest);
  EXPECT_LE((cuda::AttendShared<AttendShape<256, 16, 128, 1>>::bytes()), smallest);
}

}  // namespace
}  // namespace temper::kernels
