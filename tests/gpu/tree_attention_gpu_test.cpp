#include "gpu/gpu_test_util.h"
#include "kernels/attention_device_case.h"
#include "temper/kernels/tree_attention.h"

namespace temper::kernels {
namespace {

using namespace attention_case;
using test::GpuBuffer;

class TreeAttentionGpu : public test::GpuTest {};

Launch launcher(int64_t rows_per_list) {
  return
      [=](const TreeAttentionArgs& a) { return cuda::tree_attention(a, rows_per_list, nullptr); };
}

template <class T>
bool equal(const T& a, const T& b) {
  return std::apply(
      [&](const auto&... x) {
        return std::apply([&](const auto&... y) { return (test::same_bits(x, y) && ...); }, b);
      },
      a);
}

TEST_F(TreeAttentionGpu, ForwardHasTheBitsOfTheCpu) {
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{6, 2, 128}, Shape{3, 1, 256}, Shape{4, 4, 8},
                             Shape{9, 3, 64, 50}, Shape{130, 2, 24}}) {
    SCOPED_TRACE(testing::Message() << shape.heads << " " << shape.head_dim << " " << shape.window);
    for (const Problem& p : {make_tree(kThreeLevels, shape), make_tree({{-1, 700}}, shape),
                             make_group(600, 8, shape)}) {
      for (const int64_t rows_per_list : {0, 1}) {
        for (const size_t offset : {0, 3}) {
          EXPECT_TRUE(
              equal(run_on_device<GpuBuffer>(p, launcher(rows_per_list), offset), cpu_outputs(p)))
              << rows_per_list << " " << offset;
        }
      }
    }
  }
}

TEST_F(TreeAttentionGpu, BackwardHasTheBitsOfTheCpu) {
  const BackwardLaunch launch = [](const TreeAttentionBackwardArgs& b,
                                   const cuda::TreeAttentionWorkspace& w) {
    return cuda::tree_attention_backward(b, w, nullptr);
  };
  for (const Shape& shape :
       {Shape{9, 3, 64}, Shape{6, 2, 128}, Shape{3, 1, 256}, Shape{4, 4, 8}, Shape{9, 3, 64, 50}}) {
    SCOPED_TRACE(testing::Message() << shape.heads << " " << shape.head_dim << " " << shape.window);
    for (const Problem& p : {make_tree(kThreeLevels, shape), make_tree({{-1, 700}}, shape)}) {
      const auto dout = test::random_floats(p.rows() * p.q_width(), 77);
      for (const size_t offset : {0, 3}) {
        EXPECT_TRUE(equal(run_backward_on_device<GpuBuffer>(p, dout, launch, offset),
                          cpu_gradients(p, dout)))
            << offset;
      }
    }
  }
}

}  // namespace
}  // namespace temper::kernels
