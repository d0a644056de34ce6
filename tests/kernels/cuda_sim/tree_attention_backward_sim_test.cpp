#include <gtest/gtest.h>

#include "cuda/tree_attention_backward.cuh"
#include "kernels/cuda_sim/attention_sim_util.h"
#include "temper/core/error.h"

namespace temper::kernels {
namespace {

using namespace attention_case;
using cuda::KeyGradientShape;
using cuda::QueryGradientShape;
using test::random_floats;

const BackwardLaunch kLauncher = [](const TreeAttentionBackwardArgs& b,
                                    const cuda::TreeAttentionWorkspace& w) {
  return cuda::launch_tree_attention_backward(b, w, nullptr);
};

/// The launcher's steps with shapes that need not be its choice.
template <class Query, class Key>
BackwardLaunch shapes() {
  return [](const TreeAttentionBackwardArgs& b, const cuda::TreeAttentionWorkspace& w) {
    const cuda::AttentionGradients g = cuda::gradients_of(b, w);
    cuda::Status status = cuda::launch_delta(g, w.delta, nullptr);
    if (status.ok()) status = cuda::launch_query_gradient<Query>(g, nullptr);
    if (status.ok()) status = cuda::launch_key_gradient<Key>(g, std::ssize(w.blocks), nullptr);
    return status;
  };
}

std::vector<float> random_dout(const Problem& p) {
  return random_floats(p.rows() * p.q_width(), 77);
}

void expect_cpu_bits(const Problem& p, const BackwardLaunch& launch) {
  const auto dout = random_dout(p);
  EXPECT_TRUE(test::identical(run_backward_on_emulator(p, dout, launch), cpu_gradients(p, dout)));
}

TEST(TreeAttentionBackwardSim, HasTheBitsOfTheCpuWhateverTheLength) {
  const auto lengths = test::tsan_size<std::vector<int64_t>>({1, 31, 33, 65, 130}, {1, 66});
  for (const int64_t length : lengths) {
    for (const int head_dim : {8, 64, 128}) {
      SCOPED_TRACE(testing::Message() << length << " rows, head_dim " << head_dim);
      const Problem p = make_tree({{-1, length}}, {6, 2, head_dim});
      expect_gradients_match(p);  // What the bits are compared with is right.
      expect_cpu_bits(p, kLauncher);
    }
  }
}

TEST(TreeAttentionBackwardSim, NoOrderOfThreadsChangesABit) {
  for (const Shape& shape :
       {Shape{3, 1, 64}, Shape{4, 2, 24, 40}, Shape{2, 1, 72}, Shape{2, 1, 136}}) {
    SCOPED_TRACE(shape.head_dim);
    const Problem p = make_tree({{-1, 66}, {0, 9}, {0, 3}}, shape);
    const auto dout = random_dout(p);
    const GradientOutputs got =
        test::in_all_orders([&] { return run_backward_on_emulator(p, dout, kLauncher); });
    EXPECT_TRUE(test::identical(got, cpu_gradients(p, dout)));
  }
}

TEST(TreeAttentionBackwardSim, EveryShapeOfLaunchHasTheSameBits) {
  const Problem narrow = make_tree({{-1, 66}, {0, 20}, {0, 7}}, {6, 2, 40, 60});
  expect_cpu_bits(narrow,
                  shapes<QueryGradientShape<64, 32, 128, 2>, KeyGradientShape<64, 64, 32, 256>>());
  expect_cpu_bits(narrow,
                  shapes<QueryGradientShape<64, 16, 256, 2>, KeyGradientShape<64, 32, 16, 128>>());
  expect_cpu_bits(narrow,
                  shapes<QueryGradientShape<64, 64, 128, 1>, KeyGradientShape<64, 16, 64, 64>>());
  const Problem wide = make_tree({{-1, 70}, {0, 3}}, {4, 2, 200});
  expect_cpu_bits(wide,
                  shapes<QueryGradientShape<256, 8, 128, 1>, KeyGradientShape<256, 16, 16, 256>>());
}

TEST(TreeAttentionBackwardSim, TreesWithWindowsHaveTheBitsOfTheCpu) {
  const auto tree =
      test::tsan_size(kThreeLevels, {{-1, 34}, {0, 17}, {0, 1}, {1, 20}, {1, 5}, {-1, 15}});
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{4, 4, 32}, Shape{9, 3, 64, 5}, Shape{3, 1, 256},
                             Shape{7, 1, 40, 50}}) {
    SCOPED_TRACE(testing::Message() << shape.heads << " " << shape.head_dim << " " << shape.window);
    expect_cpu_bits(make_tree(tree, shape), kLauncher);
  }
}

TEST(TreeAttentionBackwardSim, SpansMayOverlapAndBeCutAnywhere) {
  Problem p{.shape = {3, 1, 16}};
  p.spans = {{10, 90}, {10, 50}, {100, 20}, {40, 32}, {10, 30}, {72, 8}, {120, 3}};
  for (int32_t i = 0; i < 90; ++i) p.queries.push_back({0, 1, i + 1, i});
  for (int32_t i = 0; i < 20; ++i) p.queries.push_back({1, 3, 51 + i, 50 + i});
  for (int32_t i = 0; i < 3; ++i) p.queries.push_back({3, 7, 71 + i, 70 + i});
  p.key_rows = 130;
  p.fill(9);
  expect_cpu_bits(p, kLauncher);
}

TEST(TreeAttentionBackwardSim, ReadsArraysThatAreNotAligned) {
  const Problem p = make_tree({{-1, 40}, {0, 5}}, {4, 2, 24});
  const auto dout = random_dout(p);
  EXPECT_TRUE(
      test::identical(run_backward_on_emulator(p, dout, kLauncher, 3), cpu_gradients(p, dout)));
}

TEST(TreeAttentionBackwardSim, NeedsTheLogSumExpAndWorkspace) {
  const Problem p = make_tree({{-1, 2}}, {2, 1, 8});
  Result r;
  TreeAttentionBackwardArgs b{};
  b.forward = p.args(r.out, r.lse);
  EXPECT_EQ(cuda::launch_tree_attention_backward(b, {}, nullptr).code, cuda::kInvalidArgument);
  float delta[4];
  b.forward.lse = nullptr;
  EXPECT_EQ(cuda::launch_tree_attention_backward(b, {{}, {}, delta}, nullptr).code,
            cuda::kInvalidArgument);
}

TEST(TreeAttentionBackwardSim, TilesFitTheSharedMemoryOfEverySupportedDevice) {
  const size_t smallest = 99 * 1024;  // sm_86 and sm_89
  EXPECT_LE((cuda::QueryGradientShared<QueryGradientShape<64, 32, 128, 2>>::bytes()), smallest);
  EXPECT_LE((cuda::QueryGradientShared<QueryGradientShape<128, 16, 128, 2>>::bytes()), smallest);
  EXPECT_LE((cuda::QueryGradientShared<QueryGradientShape<256, 8, 128, 1>>::bytes()), smallest);
  EXPECT_LE((cuda::KeyGradientShared<KeyGradientShape<64, 64, 32, 128>>::bytes()), smallest);
  EXPECT_LE((cuda::KeyGradientShared<KeyGradientShape<128, 32, 32, 128>>::bytes()), smallest);
  EXPECT_LE((cuda::KeyGradientShared<KeyGradientShape<256, 16, 16, 128>>::bytes()), smallest);
}

TEST(TreeAttentionKeyPlan, VisitsHoldExactlyTheRowsThatSee) {
  for (const int64_t window : {0, 20}) {
    const Problem p = make_tree(kThreeLevels, {2, 1, 8, window});
    std::vector<float> out, lse;
    const TreeAttentionKeyPlan plan = plan_tree_attention_keys(p.args(out, lse));
    std::vector<std::vector<int64_t>> planned(static_cast<size_t>(p.rows())), seen = planned;
    for (const auto& block : plan.blocks) {
      EXPECT_LE(block.count, 64);
      for (int32_t i = block.visit_begin; i < block.visit_end; ++i) {
        const auto& visit = plan.visits[static_cast<size_t>(i)];
        if (i > block.visit_begin) {
          EXPECT_GE(visit.row_begin, plan.visits[static_cast<size_t>(i - 1)].row_end);
        }
        for (int64_t row = visit.row_begin; row < visit.row_end; ++row) {
          const int64_t visible = p.queries[static_cast<size_t>(row)].visible;
          for (int64_t j = visit.lo; j < visit.hi; ++j) {
            const int64_t key = visit.base + j;
            if (key >= visible || (window > 0 && key < visible - window)) continue;
            planned[static_cast<size_t>(row)].push_back(block.first_row + j);
          }
        }
      }
    }
    for (int64_t row = 0; row < p.rows(); ++row) {
      seen[static_cast<size_t>(row)] = p.keys_of(row);
      std::sort(planned[static_cast<size_t>(row)].begin(), planned[static_cast<size_t>(row)].end());
      std::sort(seen[static_cast<size_t>(row)].begin(), seen[static_cast<size_t>(row)].end());
    }
    EXPECT_EQ(planned, seen);
  }
}

TEST(TreeAttentionKeyPlan, LeavesOutBlocksThatNobodySees) {
  Problem p{.shape = {1, 1, 8}};
  p.spans = {{0, 300}};
  p.queries = {{0, 1, 200, 199}, {0, 1, 70, 69}};
  p.shape.window = 8;
  std::vector<float> out, lse;
  const TreeAttentionKeyPlan plan = plan_tree_attention_keys(p.args(out, lse));
  std::vector<int64_t> first_rows;  // Of the keys [62, 70) and [192, 200).
  for (const auto& block : plan.blocks) first_rows.push_back(block.first_row);
  EXPECT_EQ(first_rows, (std::vector<int64_t>{0, 64, 192}));
}

}  // namespace
}  // namespace temper::kernels
