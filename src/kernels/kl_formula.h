// Formulas of kl_penalty.h for one token.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.h"
#include "temper/kernels/kl_penalty.h"

namespace temper::kernels {

/// e^x - 1 - x for |x| <= 700, to a relative error of 1e-14: the plain difference would lose every
/// digit near 0, where penalties live.
TEMPER_HOST_DEVICE inline double exp_beyond_linear(double x) {
  // Adding 1.5 * 2^52 rounds to an integer that then stands in the low bits of the sum.
  const double magic = 6755399441055744.0;
  const double z = x * 1.4426950408889634 + magic;
  const double n = z - magic;
  // ln 2 in two parts; the first has 33 bits, so that n times it is exact.
  const double r = (x - n * 0.69314718036912382) - n * 1.9082149292705877e-10;
  // (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2: the Taylor series, whose next term is below 1e-18.
  double q = 1.0 / 87178291200;
  q = q * r + 1.0 / 6227020800;
  q = q * r + 1.0 / 479001600;
  q = q * r + 1.0 / 39916800;
  q = q * r + 1.0 / 3628800;
  q = q * r + 1.0 / 362880;
  q = q * r + 1.0 / 40320;
  q = q * r + 1.0 / 5040;
  q = q * r + 1.0 / 720;
  q = q * r + 1.0 / 120;
  q = q * r + 1.0 / 24;
  q = q * r + 1.0 / 6;
  q = q * r + 0.5;
  const double tail = q * (r * r);
  if (n == 0) return tail;
  int64_t bits = (static_cast<int64_t>(n) + 1023) << 52;
  double power = 0;
  std::memcpy(&power, &bits, sizeof power);
  return power * (1.0 + (r + tail)) - 1.0 - x;
}

struct KlTerm {
  double value;
  double slope;  // d value / d logprob
};

/// @param exact  The token's exact KL; read for kExact only, and then lp and ref are not.
TEMPER_HOST_DEVICE inline KlTerm kl_term(KlEstimator estimator, double d, double exact) {
  switch (estimator) {
    case KlEstimator::kK1: return {d, 1.0};
    case KlEstimator::kK2: return {d * d / 2, d};
    case KlEstimator::kK3: {
      double x = -d;
      if (x > kMaxLogRatio) x = kMaxLogRatio;
      if (x < -kMaxLogRatio) x = -kMaxLogRatio;
      const double value = exp_beyond_linear(x);
      return {value, -(value + x)};
    }
    case KlEstimator::kAbsolute: return {fabs(d), d > 0 ? 1.0 : d < 0 ? -1.0 : 0.0};
    case KlEstimator::kExact: break;
  }
  return {exact, 0.0};
}

/// The penalty's part of a token's reward; `kl` may be null.
TEMPER_HOST_DEVICE inline double kl_reward(const float* kl, int64_t t, double kl_coef) {
  return kl == nullptr ? 0.0 : -(kl_coef * static_cast<double>(kl[t]));
}

/// Clamps to +-clip; 0: not. NaN stays NaN.
TEMPER_HOST_DEVICE inline double clip_score(double score, double clip) {
  if (clip > 0 && score > clip) return clip;
  if (clip > 0 && score < -clip) return -clip;
  return score;
}

}  // namespace temper::kernels
