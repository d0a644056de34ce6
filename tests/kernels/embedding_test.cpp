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
  std::vector<uint16_t> bf16(packed.size()), f16(packed.size());
  for (int64_t id = 0; id < vocabulary; ++id) {
    for (int64_t k = 0; k < width; ++k) {
      const float value = rows[id * width + k];
      packed[(id / 32 * depth + k) * 32 + id % 32] = value;
      const int64_t at = (id / 32 * depth / 2 + k / 2) * 64 + id % 32 * 2 + k % 2;
      bf16[at] = float_to_bf16(value);
      f16[at] = float_to_half(value);
    }
  }
  const std::vector<int32_t> ids = {0, 69, 31, 32, 33, 63, 64, 31, 5, 5, 68};
  const auto gather = [&](PackedWeight w) {
    w.n = vocabulary;
    w.k = width;
    std::vector<float> out(ids.size() * static_cast<size_t>(width));
    embedding(w, ids, out.data());
    return out;
  };
  const auto exact = gather({.f32 = packed.data()});
  const auto from_bf16 = gather({.f32 = packed.data(), .bf16 = bf16.data()});
  const auto from_f16 = gather({.f32 = packed.data(), .f16 = f16.data()});
  for (size_t row = 0; row < ids.size(); ++row) {
    for (int64_t k = 0; k < width; ++k) {
      const float expected = rows[ids[row] * width + k];
      const size_t at = row * width + static_cast<size_t>(k);
      EXPECT_EQ(exact[at], expected);
      EXPECT_EQ(from_bf16[at], bf16_to_float(float_to_bf16(expected)));
      EXPECT_EQ(from_f16[at], half_to_float(float_to_half(expected)));
    }
  }
  embedding({.f32 = packed.data(), .n = vocabulary, .k = width}, {}, nullptr);
}

}  // namespace
}  // namespace temper::kernels
