// What adamw.h's optimizer and clipping compute outside of the element.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"
#include "temper/kernels/adamw.h"

namespace temper::kernels {

/// The step's constants, rounded from double once.
struct AdamWFactors {
  float decay, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, root_scale, eps;
};

inline AdamWFactors adamw_factors(const AdamWArgs& a) {
  const auto step = static_cast<double>(a.step);
  return {static_cast<float>(1.0 - a.learning_rate * a.weight_decay),
          static_cast<float>(a.beta1),
          static_cast<float>(1.0 - a.beta1),
          static_cast<float>(a.beta2),
          static_cast<float>(1.0 - a.beta2),
          static_cast<float>(a.learning_rate / (1.0 - std::pow(a.beta1, step))),
          static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(a.beta2, step))),
          static_cast<float>(a.eps)};
}

/// The draw of an element: the index under half of the key, hashed, and under the other half once
/// more; each hash is a permutation of words whose every input bit turns every output bit over half
/// of the time. `MomentBits` of cpu/adamw.cpp is the same in vectors: change both together.
TEMPER_HOST_DEVICE inline uint32_t moment_bits(uint64_t key, uint32_t element) {
  uint32_t x = element ^ static_cast<uint32_t>(key);
  x = (x ^ x >> 16) * 0x21f0aaadu;
  x = (x ^ x >> 15) * 0x735a2d97u;
  x = (x ^ x >> 15) + static_cast<uint32_t>(key >> 32);
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return x ^ x >> 16;
}

/// The upper half of a float's bits after 16 random ones were added below it.
TEMPER_HOST_DEVICE inline uint16_t moment_half(uint32_t bits, uint32_t random) {
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;  // A carry could make a number of it.
  return static_cast<uint16_t>((nan ? bits | 0x400000u : bits + (random & 0xffffu)) >> 16);
}

TEMPER_HOST_DEVICE inline double clip_scale(double norm, double max_norm) {
  if (max_norm == 0) return 1.0;
  const double scale = max_norm / (norm + 1e-6);
  return scale > 1.0 ? 1.0 : scale;
}

}  // namespace temper::kernels
