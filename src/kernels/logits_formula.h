// Formulas of linear_logprob.h and sampling.h for one row of logits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace temper::kernels {

/// Columns whose exponentials are summed in fp32 lanes before the sum moves to double.
inline constexpr int64_t kLogitChunk = 1024;
/// Scaled logits are taken as at least max - 1e4: exp is 0 there, and 0 * x stays finite.
inline constexpr float kFarBelow = -1e4f;

struct RowStats {
  float max;        // Largest scaled logit; never -0.
  double sum;       // sum exp(x), x = scaled logit - max.
  double weighted;  // sum x exp(x).
};

/// ln x within 1 ulp: the C library's and CUDA's differ in bits. 0 gives -infinity, infinity
/// infinity, negative numbers and NaN NaN.
TEMPER_HOST_DEVICE inline double natural_log(double x) {
  if (!(x > 0)) return x == 0 ? static_cast<double>(-INFINITY) : static_cast<double>(NAN);
  if (!(x < static_cast<double>(INFINITY))) return x;
  // x = 2^n m with m in [sqrt(1/2), sqrt(2)).
  const double subnormal = x < 2.2250738585072014e-308 ? 54.0 : 0.0;
  if (subnormal > 0) x *= 18014398509481984.0;
  int64_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  const int64_t exponent = (bits - 0x3fe6a09e667f3bcd) >> 52;
  bits -= exponent * (int64_t{1} << 52);
  double m = 0;
  std::memcpy(&m, &bits, sizeof m);
  const double n = static_cast<double>(exponent) - subnormal;
  // With f = m - 1 and s = f / (2 + f): ln m = f - f^2/2 + s (f^2/2 + R), R the tail of the atanh
  // series 2 (s^3/3 + s^5/5 + ...) / s, whose first term left out is below 2^-60 of the result.
  const double f = m - 1.0;
  const double s = f / (f + 2.0);
  const double s2 = s * s;
  double tail = 2.0 / 21;
  tail = tail * s2 + 2.0 / 19;
  tail = tail * s2 + 2.0 / 17;
  tail = tail * s2 + 2.0 / 15;
  tail = tail * s2 + 2.0 / 13;
  tail = tail * s2 + 2.0 / 11;
  tail = tail * s2 + 2.0 / 9;
  tail = tail * s2 + 2.0 / 7;
  tail = tail * s2 + 2.0 / 5;
  tail = tail * s2 + 2.0 / 3;
  const double half_square = f * f * 0.5;
  const double correction = s * (tail * s2 + half_square);
  // ln 2 in two parts; the first has 33 bits, so that n times it is exact.
  const double low = correction + n * 1.9082149292705877e-10;
  return n * 0.69314718036912382 + (f - (half_square - low));
}

/// Log-prob of a column whose logit is z_y. The same expression everywhere.
TEMPER_HOST_DEVICE inline float row_logprob(const RowStats& s, float z_y,
                                            float inverse_temperature) {
  return static_cast<float>(static_cast<double>(z_y * inverse_temperature - s.max) -
                            natural_log(s.sum));
}

TEMPER_HOST_DEVICE inline float row_entropy(const RowStats& s) {
  return static_cast<float>(natural_log(s.sum) - s.weighted / s.sum);
}

TEMPER_HOST_DEVICE inline float row_log_sum(const RowStats& s) {
  return static_cast<float>(natural_log(s.sum));
}

/// KL(p || q) with difference = sum e^x (x - y).
TEMPER_HOST_DEVICE inline float row_kl_from(double difference, const RowStats& p,
                                            const RowStats& q) {
  return static_cast<float>(difference / p.sum + (natural_log(q.sum) - natural_log(p.sum)));
}

/// Log of the mass that `all` gives to the columns of `kept`.
TEMPER_HOST_DEVICE inline float log_kept_mass(const RowStats& kept, const RowStats& all) {
  return static_cast<float>(static_cast<double>(kept.max) - static_cast<double>(all.max) +
                            natural_log(kept.sum / all.sum));
}

/// Logits in ascending order as integers; 0 and -0 are equal.
TEMPER_HOST_DEVICE inline uint32_t ordered_key(float z) {
  const float plus_zero = z + 0.0f;
  uint32_t bits = 0;
  std::memcpy(&bits, &plus_zero, sizeof bits);
  return bits ^ (bits >> 31 != 0 ? 0xffffffffu : 0x80000000u);
}
/// The logit of a key.
TEMPER_HOST_DEVICE inline float logit_of(uint32_t key) {
  const uint32_t bits = key ^ (key >> 31 != 0 ? 0x80000000u : 0xffffffffu);
  float z = 0;
  std::memcpy(&z, &bits, sizeof z);
  return z;
}
inline constexpr uint32_t kKeyOfMinusInfinity = 0x007fffffu;

/// Probability in units of 2^-40 of the largest: sums of integers have no order, so every way to
/// find the ids that top-p keeps finds the same.
using Mass = unsigned long long;
/// @param e  Weight relative to the largest, in [0, 1].
TEMPER_HOST_DEVICE inline Mass mass_of(float e) { return static_cast<Mass>(e * 0x1p40f); }
/// From below, ids are removed while their mass is at most this; less than `total`, so that the
/// largest stays. `total` > 0.
TEMPER_HOST_DEVICE inline Mass mass_to_remove(Mass total, float top_p) {
  const Mass limit =
      static_cast<Mass>((1.0 - static_cast<double>(top_p)) * static_cast<double>(total));
  return limit < total ? limit : total - 1;
}

/// Scaled logits below max + this go under min-p.
TEMPER_HOST_DEVICE inline float min_p_bound(float min_p) {
  return static_cast<float>(natural_log(static_cast<double>(min_p)));
}

/// A seen id's logit under the repetition penalty.
TEMPER_HOST_DEVICE inline float penalized(float z, float penalty) {
  return z > 0 ? z / penalty : z * penalty;
}

}  // namespace temper::kernels
