// Half-precision panels: every number, and the rounding that fills them.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <utility>
#include <vector>

#include "kernels/kernel_test_util.h"
#include "temper/core/dtype.h"
#include "temper/kernels/linear.h"

namespace temper::kernels {
namespace {

using Floats = std::vector<float>;

/// Restricts kernels to each instruction set that was compiled and that this CPU has, in turn.
template <class Body>
void on_every_target(const Body& body) {
  for (const int64_t target : {int64_t{HWY_STATIC_TARGET}, int64_t{HWY_AVX2}, int64_t{HWY_AVX3}}) {
    if ((hwy::SupportedTargets() & target) == 0) continue;
    const test::TargetScope scope(target);
    body(hwy::TargetName(target));
  }
}

void expect_half(float got, size_t bits, const char* what) {
  const float want = half_to_float(static_cast<uint16_t>(bits));
  ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
      << what << " " << bits << ": " << got << ", not " << want;
}

// All 65536 of them, subnormals, infinities and NaN among them, in both places of a word.
TEST(LinearHalf, EveryNumberIsReadExactlyByEveryInstructionSet) {
  constexpr size_t kCount = 65536;
  on_every_target([&](const char* name) {
    for (const size_t place : {0, 1}) {
      std::vector<uint16_t> outputs(2 * kCount), inputs(kCount * 32);
      for (size_t bits = 0; bits < kCount; ++bits) {
        outputs[2 * bits + place] = static_cast<uint16_t>(bits);
        inputs[bits / 2 * 64 + bits % 2] = static_cast<uint16_t>(bits);
      }
      const Floats ones(2, 1.0f);
      Floats y(kCount), dx(kCount);
      linear({.x = ones.data(),
              .x_stride = 2,
              .weight = {.n = kCount, .k = 2, .f16 = outputs.data()},
              .y = y.data(),
              .y_stride = kCount,
              .rows = 1});
      linear_backward_input({.dy = ones.data(),
                             .dy_stride = 1,
                             .weight = {.n = 1, .k = kCount, .f16 = inputs.data()},
                             .dx = dx.data(),
                             .dx_stride = kCount,
                             .rows = 1});
      for (size_t bits = 0; bits < kCount; ++bits) {
        expect_half(y[bits], bits, name);
        expect_half(dx[bits], bits, name);
      }
    }
  });
}

// Hand-worked: where half precision ends.
TEST(LinearHalf, PanelsAreRoundedToNearestEven) {
  Floats panels(64, 0.0f);
  const std::vector<std::pair<float, uint16_t>> cases = {
      {1.0f + 0x1p-11f, 0x3c00}, {1.0f + 3 * 0x1p-11f, 0x3c02},
      {65519.0f, 0x7bff},        {65520.0f, 0x7c00},
      {-1e9f, 0xfc00},           {0x1p-24f, 0x0001},
      {0x1p-25f, 0x0000},        {0x1.8p-25f, 0x0001},
      {-0x1p-14f, 0x8400}};
  for (size_t i = 0; i < cases.size(); ++i) panels[i] = cases[i].first;
  std::vector<uint16_t> half(64, 0xffff);
  panels_to_f16(panels.data(), 64, half.data());
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(half[2 * i], i < cases.size() ? cases[i].second : 0) << i;
    EXPECT_EQ(half[2 * i + 1], 0);
  }
}

}  // namespace
}  // namespace temper::kernels
