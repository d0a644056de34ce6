// Quantized blocks: how they are made and packed, and what reads them. Expectations: hand-worked
// values, bounds of the rounding, and float32 panels of the widened weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/kernel_test_util.h"
#include "temper/core/dtype.h"
#include "temper/core/error.h"
#include "temper/kernels/blocks.h"
#include "temper/kernels/embedding.h"
#include "temper/kernels/linear.h"
#include "temper/kernels/linear_logprob.h"
#include "temper/kernels/swiglu.h"

namespace temper::kernels {
namespace {

using Floats = std::vector<float>;
using test::random_floats;

enum class Kind { kQ4_0, kQ4_1, kQ8_0 };
constexpr Kind kKinds[] = {Kind::kQ4_0, Kind::kQ4_1, Kind::kQ8_0};

/// A weight in blocks, and its widened numbers by the formula of blocks.h.
struct BlockWeight {
  int64_t n, k, across;
  Kind kind;
  std::vector<uint8_t> codes, packed_codes;
  std::vector<uint16_t> scales, minimums, packed_scales, packed_minimums;
  Floats rows, panels;

  BlockWeight(int64_t n_, int64_t k_, Kind kind_, uint32_t seed)
      : n(n_), k(k_), across((k_ + 31) / 32), kind(kind_) {
    const Floats values = random_floats(n * k, seed, 3.0f);
    codes.resize(values.size());
    scales.resize(static_cast<size_t>(n * across));
    if (kind == Kind::kQ8_0) {
      quantize_blocks8(values.data(), n, k, codes.data(), scales.data());
    } else {
      minimums.resize(scales.size());
      quantize_blocks4(values.data(), n, k, codes.data(), scales.data(), minimums.data());
      if (kind == Kind::kQ4_0) minimums.clear();
    }
    pack();
  }
  void pack() {
    packed_codes.assign(static_cast<size_t>(block_code_bytes(n, k, bits())), 0);
    packed_scales.assign(static_cast<size_t>(block_elements(n, k)), 0);
    if (!minimums.empty()) packed_minimums.assign(packed_scales.size(), 0);
    // In two pieces, which need not begin with a panel.
    const int64_t first = n / 3;
    for (const auto& [begin, count] : {std::pair{int64_t{0}, first}, {first, n - first}}) {
      pack_blocks({bits(), count, k, codes.data() + begin * k, scales.data() + begin * across,
                   minimums.empty() ? nullptr : minimums.data() + begin * across},
                  begin, n,
                  {packed_codes.data(), packed_scales.data(),
                   packed_minimums.empty() ? nullptr : packed_minimums.data()});
    }
    rows.resize(codes.size());
    for (int64_t i = 0; i < n * k; ++i) rows[static_cast<size_t>(i)] = widened(i / k, i % k);
    panels.assign(static_cast<size_t>(panel_elements(n, k)), 0.0f);
    pack_rows(rows.data(), n, k, 0, panels.data());
  }
  int bits() const { return kind == Kind::kQ8_0 ? 8 : 4; }
  float widened(int64_t row, int64_t step) const {
    const auto block = static_cast<size_t>(row * across + step / 32);
    const float scale = half_to_float(scales[block]);
    const uint8_t code = codes[static_cast<size_t>(row * k + step)];
    if (kind == Kind::kQ8_0) return scale * static_cast<float>(static_cast<int8_t>(code));
    if (kind == Kind::kQ4_0) return scale * static_cast<float>(code - 8);
    return scale * static_cast<float>(code) + half_to_float(minimums[block]);
  }
  PackedWeight packed() const {
    PackedWeight w{.n = n, .k = k};
    if (bits() == 4) w.codes4 = packed_codes.data();
    if (bits() == 8) w.codes8 = reinterpret_cast<const int8_t*>(packed_codes.data());
    w.block_scales = packed_scales.data();
    w.block_minimums = packed_minimums.empty() ? nullptr : packed_minimums.data();
    return w;
  }
  PackedWeight widened_panels() const { return {.f32 = panels.data(), .n = n, .k = k}; }
};

Floats run_linear(const PackedWeight& w, const Floats& x, int64_t rows) {
  Floats y(static_cast<size_t>(rows * w.n), NAN);
  linear(
      {.x = x.data(), .x_stride = w.k, .weight = w, .y = y.data(), .y_stride = w.n, .rows = rows});
  return y;
}

// Hand-worked: 16 codes over a block from -1 to 2 are 0.2 apart, as far as half precision says so.
TEST(QuantizeBlocks, CodesAreTheNearestOfTheirBlock) {
  Floats block(32, 0.5f);
  block[0] = -1;
  block[1] = 2;
  block[2] = -0.89f;
  block[3] = -0.91f;
  block.insert(block.end(), {7, 7, 7});  // A block that is cut, of equal numbers.
  std::vector<uint8_t> codes(35);
  uint16_t scales[2], minimums[2];
  quantize_blocks4(block.data(), 1, 35, codes.data(), scales, minimums);
  EXPECT_EQ(half_to_float(scales[0]), half_to_float(float_to_half(0.2f)));
  EXPECT_EQ(half_to_float(minimums[0]), -1.0f);
  EXPECT_EQ(std::vector<uint8_t>(codes.begin(), codes.begin() + 4),
            (std::vector<uint8_t>{0, 15, 1, 0}));
  EXPECT_EQ(codes[4], 8);  // 1.5 / 0.2 = 7.5, and the scale's half is a little below 0.2.
  EXPECT_EQ(scales[1], 0);
  EXPECT_EQ(half_to_float(minimums[1]), 7.0f);
  Floats wide(32, 0.0f);
  wide[3] = -12.7f;
  wide[4] = 0.06f;
  wide[5] = 0.04f;
  quantize_blocks8(wide.data(), 1, 32, codes.data(), scales);
  EXPECT_EQ(static_cast<int8_t>(codes[3]), -127);
  EXPECT_EQ(codes[4], 1);
  EXPECT_EQ(codes[5], 0);
}

TEST(QuantizeBlocks, ChangeAWeightByHalfAScaleAndTheRoundingOfHalves) {
  const Floats values = random_floats(40 * 100, 3);
  std::vector<uint8_t> codes(values.size());
  std::vector<uint16_t> scales(40 * 4), minimums(40 * 4);
  quantize_blocks4(values.data(), 40, 100, codes.data(), scales.data(), minimums.data());
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t block = i / 100 * 4 + i % 100 / 32;
    const float scale = half_to_float(scales[block]), minimum = half_to_float(minimums[block]);
    const float got = scale * codes[i] + minimum;
    // At the upper end the rounding of scale and minimum adds up: 16 of 2^-11 each.
    ASSERT_LE(std::abs(got - values[i]), 0.5f * scale + 16 * scale * 0x1p-11f + 0x1p-11f) << i;
  }
}

TEST(PackBlocks, MinimumsAreWrittenOutOrRefused) {
  std::vector<uint8_t> codes(32, 3), panels(static_cast<size_t>(block_code_bytes(1, 32, 4)), 0);
  uint16_t scale = float_to_half(0.5f);
  std::vector<uint16_t> scales(32), minimums(32);
  const BlockPanels to{panels.data(), scales.data(), minimums.data()};
  pack_blocks({4, 1, 32, codes.data(), &scale, nullptr}, 0, 1, to);
  EXPECT_EQ(half_to_float(minimums[0]), -4.0f);
  EXPECT_EQ(panels[0], 0x33);
  scale = float_to_half(9000.0f);
  EXPECT_THROW(pack_blocks({4, 1, 32, codes.data(), &scale, nullptr}, 0, 1, to), Error);
}

TEST(LinearBlocks, HasTheBitsOfTheWidenedWeights) {
  for (const Kind kind : kKinds) {
    for (const auto& [n, k] :
         {std::pair{1, 1}, {31, 33}, {33, 256}, {160, 257}, {70, 1025}, {128, 64}}) {
      const BlockWeight w(n, k, kind, 1);
      for (const int64_t rows : {1, 2, 3, 4, 6, 7, 12, 13, 50}) {
        const Floats x = random_floats(rows * k, 2);
        ASSERT_EQ(run_linear(w.packed(), x, rows), run_linear(w.widened_panels(), x, rows))
            << n << " x " << k << " rows " << rows;
      }
    }
  }
}

TEST(LinearBlocks, BitsDoNotDependOnBatchThreadsOrInstructionSet) {
  for (const Kind kind : kKinds) {
    const BlockWeight w(576, 300, kind, 3);
    const Floats x = random_floats(205 * 300, 4);
    const Floats base = run_linear(w.packed(), x, 205);
    for (const int threads : {1, 2, 3}) {
      const test::ThreadScope scope(threads);
      for (const int64_t rows : {1, 3, 5, 12, 65, 204, 205}) {
        const Floats y = run_linear(w.packed(), x, rows);
        EXPECT_TRUE(std::equal(y.begin(), y.end(), base.begin())) << threads << " " << rows;
      }
    }
  }
  const BlockWeight w(70, 300, Kind::kQ4_1, 3);
  const Floats x = random_floats(14 * 300, 4);
  test::expect_same_bits_on_targets([&] { return run_linear(w.packed(), x, 14); });
}

TEST(LinearBlocks, InputGradientEmbeddingAndSwigluAreThoseOfTheWidenedWeights) {
  for (const Kind kind : kKinds) {
    for (const auto& [n, k] : {std::pair{2, 5}, {66, 300}, {290, 64}, {64, 257}}) {
      const BlockWeight w(n, k, kind, 17);
      const int64_t rows = 50;
      const Floats dy = random_floats(rows * n, 18);
      const auto run = [&](const PackedWeight& weight) {
        Floats dx(static_cast<size_t>(rows * k), NAN);
        linear_backward_input({.dy = dy.data(),
                               .dy_stride = n,
                               .weight = weight,
                               .dx = dx.data(),
                               .dx_stride = k,
                               .rows = rows});
        return dx;
      };
      EXPECT_EQ(run(w.packed()), run(w.widened_panels())) << n << " x " << k;
      std::vector<int32_t> ids;
      for (int32_t i = 0; i < n; ++i) ids.push_back(n - 1 - i);
      Floats out(static_cast<size_t>(n * k));
      embedding(w.packed(), ids, out.data());
      for (int64_t i = 0; i < n * k; ++i) {
        ASSERT_EQ(out[static_cast<size_t>(i)],
                  w.rows[static_cast<size_t>((n - 1 - i / k) * k + i % k)]);
      }
    }
    const BlockWeight w(128, 300, kind, 12);
    const Floats x = random_floats(13 * 300, 13), plain = run_linear(w.packed(), x, 13);
    Floats y(plain.size()), fused(13 * 64), gated(13 * 64);
    linear({.x = x.data(),
            .x_stride = 300,
            .weight = w.packed(),
            .y = y.data(),
            .y_stride = 128,
            .rows = 13,
            .swiglu = fused.data()});
    swiglu(plain.data(), gated.data(), 13, 64);
    EXPECT_EQ(fused, gated);
  }
}

TEST(LinearBlocks, WeightGradientsAndDotsAreRefused) {
  const BlockWeight w(3, 5, Kind::kQ4_1, 17);
  Floats a(5), b(5);
  const LinearLogprobArgs head{.hidden = a.data(), .head = w.packed(), .rows = 1};
  EXPECT_THROW(linear_logprob_backward({.forward = head, .dweight = b.data()}), Error);
  PackedWeight dot = w.packed();
  dot.product = Product::kDot;
  EXPECT_THROW(linear({.x = a.data(), .weight = dot, .y = b.data(), .rows = 1}), Error);
}

}  // namespace
}  // namespace temper::kernels
