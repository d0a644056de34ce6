#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernel_test_util.h"
#include "temper/core/dtype.h"
#include "temper/kernels/blocks.h"
#include "temper/kernels/linear.h"
#include "temper/ops/reference.h"

namespace temper::test_ops {

using Floats = std::vector<float>;
using test::random_floats;

/// The unit of a float32 rounding error.
inline constexpr double kEps = 5.9604644775390625e-8;  // 2^-24

inline const kernels::KernelTable& reference() { return ops::reference_kernels(); }

inline Floats absolute(Floats values) {
  for (float& v : values) v = std::abs(v);
  return values;
}

/// Every element within `units` rounding errors of its magnitude: the sum of the absolute values of
/// the terms that it is the sum of, which is what rounding errors are proportional to.
inline void expect_within(const Floats& got, const Floats& want, const Floats& magnitude,
                          double units, const std::string& what = "") {
  ASSERT_EQ(got.size(), want.size()) << what;
  ASSERT_EQ(got.size(), magnitude.size()) << what;
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(std::isfinite(got[i]) && std::isfinite(want[i])) << what << ", element " << i;
    const double error = std::abs(double{got[i]} - double{want[i]});
    const double bound = std::abs(double{magnitude[i]}) * kEps + 1e-37;
    if (error / bound > worst) {
      worst = error / bound;
      at = i;
    }
  }
  EXPECT_LE(worst, units) << what << ", element " << at << ": " << got[at] << " against "
                          << want[at];
}

inline void expect_within(const Floats& got, const Floats& want, double magnitude, double units,
                          const std::string& what = "") {
  expect_within(got, want, Floats(got.size(), static_cast<float>(magnitude)), units, what);
}

/// How a weight is stored and multiplied.
enum class Stored { kFloat32, kBf16, kBf16Dot, kF16, kInt8, kQ4, kQ8 };
/// Those with gradients, and with those of frozen weights.
inline constexpr Stored kAllStored[] = {Stored::kFloat32, Stored::kBf16, Stored::kBf16Dot,
                                        Stored::kF16};
inline constexpr Stored kAllRead[] = {Stored::kFloat32, Stored::kBf16, Stored::kBf16Dot,
                                      Stored::kF16, Stored::kInt8, Stored::kQ4,
                                      Stored::kQ8};

/// A random weight [n, k] in panels. `rows` holds the values that products see, row-major.
struct Weight {
  Weight(int64_t n_, int64_t k_, uint32_t seed, Stored how, float scale = 1.0f)
      : Weight(random_floats(n_ * k_, seed, scale), n_, k_, how) {}
  Weight(Floats values, int64_t n_, int64_t k_, Stored how)
      : rows(std::move(values)), n(n_), k(k_), stored(how) {
    for (float& v : rows) v = kept(v);
    f32.assign(static_cast<size_t>(kernels::panel_elements(n, k)), 0.0f);
    kernels::pack_rows(rows.data(), n, k, 0, f32.data());
    half.resize(f32.size());
    const auto round = how == Stored::kF16 ? kernels::panels_to_f16 : kernels::panels_to_bf16;
    round(f32.data(), std::ssize(f32), half.data());
    if (how == Stored::kInt8) quantize();
    if (blocks()) make_blocks();
  }
  /// What storage leaves of a value.
  [[nodiscard]] float kept(float v) const {
    if (stored == Stored::kFloat32 || stored == Stored::kInt8 || blocks()) return v;
    return stored == Stored::kF16 ? half_to_float(float_to_half(v))
                                  : bf16_to_float(float_to_bf16(v));
  }
  [[nodiscard]] kernels::PackedWeight packed() const {
    kernels::PackedWeight w{.f32 = f32.data(), .n = n, .k = k};
    if (blocks()) {
      w.block_scales = block_scales.data();
      if (stored == Stored::kQ8) {
        w.codes8 = reinterpret_cast<const int8_t*>(codes.data());
      } else {
        w.codes4 = codes.data();
        w.block_minimums = block_minimums.data();
      }
    } else if (stored == Stored::kInt8) {
      w.i8 = int8.data();
      w.scales = scales.data();
    } else if (stored == Stored::kF16) {
      w.f16 = half.data();
    } else if (stored != Stored::kFloat32) {
      w.bf16 = half.data();
    }
    if (stored == Stored::kBf16Dot) w.product = kernels::Product::kDot;
    return w;
  }
  /// The same weight with all values positive.
  [[nodiscard]] Weight magnitude() const { return {absolute(rows), n, k, stored}; }

  Floats rows;
  int64_t n;
  int64_t k;
  Stored stored;
  Floats f32;
  std::vector<uint16_t> half;  // Of `stored`'s type, or bf16.
  std::vector<int8_t> int8;
  Floats scales;
  std::vector<uint8_t> codes;
  std::vector<uint16_t> block_scales, block_minimums;

 private:
  [[nodiscard]] bool blocks() const { return stored == Stored::kQ4 || stored == Stored::kQ8; }
  void make_blocks() {
    const int64_t across = (k + kernels::kBlock - 1) / kernels::kBlock;
    const int bits = stored == Stored::kQ4 ? 4 : 8;
    std::vector<uint8_t> of_rows(rows.size());
    std::vector<uint16_t> s(static_cast<size_t>(n * across)), m(s.size());
    if (bits == 4) kernels::quantize_blocks4(rows.data(), n, k, of_rows.data(), s.data(), m.data());
    if (bits == 8) kernels::quantize_blocks8(rows.data(), n, k, of_rows.data(), s.data());
    codes.resize(static_cast<size_t>(kernels::block_code_bytes(n, k, bits)));
    block_scales.resize(static_cast<size_t>(kernels::block_elements(n, k)));
    block_minimums.resize(block_scales.size());
    kernels::pack_blocks({bits, n, k, of_rows.data(), s.data(), m.data()}, 0, n,
                         {codes.data(), block_scales.data(), block_minimums.data()});
    for (int64_t i = 0; i < n * k; ++i) {
      const auto at = static_cast<size_t>(i), block = static_cast<size_t>(i / k * across + i % k / 32);
      const float code = bits == 4 ? of_rows[at] : static_cast<int8_t>(of_rows[at]);
      rows[at] = half_to_float(s[block]) * code + half_to_float(m[block]);
    }
  }
  void quantize() {
    int8.resize(f32.size());
    scales.resize(static_cast<size_t>(kernels::scale_elements(n, k)));
    kernels::panels_to_int8(f32.data(), n, k, int8.data(), scales.data());
    const int64_t padded = kernels::panel_count(n) * kernels::kPanel;
    const int64_t depth = kernels::panel_depth(k);
    for (int64_t i = 0; i < n * k; ++i) {
      const int64_t row = i / k, step = i % k;
      const int8_t q = int8[static_cast<size_t>((row / 32 * depth + step) * 32 + row % 32)];
      rows[static_cast<size_t>(i)] = q * scales[static_cast<size_t>(step / 256 * padded + row)];
    }
  }
};

}  // namespace temper::test_ops
