#include "temper/kernels/embedding.h"

#include <gtest/gtest.h>

#include "kernels/kernel_test_util.h"
#include "temper/core/dtype.h"

namespace temper::kernels {
namespace {

TEST(Embedding, GathersRowsOfPanels) {
  const int64_t vocabulary = 70, width = 9, depth = 10, panels = 3;
  const auto rows = test::random_floats(vocabulary * width, 1);
  std::vector<float> packed(static_cast<size_t>(panels * depth * 32));
  std::vector<uint16_t> half(packed.size());
  for (int64_t id = 0; id < vocabulary; ++id) {
    for (int64_t k = 0; k < width; ++k) {
      packed[(id / 32 * depth + k) * 32 + id % 32] = rows[id * width + k];
      half[(id / 32 * depth / 2 + k / 2) * 64 + id % 32 * 2 + k % 2] =
          float_to_bf16(rows[id * width + k]);
    }
  }
  const std::vector<int32_t> ids = {0, 69, 31, 32, 33, 63, 64, 31, 5, 5, 68};
  std::vector<float> out(ids.size() * static_cast<size_t>(width)), rounded(out.size());
  embedding(packed.data(), width, ids, out.data());
  embedding(half.data(), width, ids, rounded.data());
  for (size_t row = 0; row < ids.size(); ++row) {
    for (int64_t k = 0; k < width; ++k) {
      const float expected = rows[ids[row] * width + k];
      EXPECT_EQ(out[row * width + k], expected);
      EXPECT_EQ(rounded[row * width + k], bf16_to_float(float_to_bf16(expected)));
    }
  }
  embedding(packed.data(), width, {}, nullptr);
}

}  // namespace
}  // namespace temper::kernels
