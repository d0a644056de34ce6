#pragma once

#include <cstdint>
#include <span>

#include "temper/kernels/sampling.h"

namespace temper::kernels {

/// Whether the parameters change the policy's distribution beyond the temperature.
[[nodiscard]] bool truncates(const SamplingParams& p);

/// Applies penalty, top-k, top-p and min-p to raw logits: what is dropped becomes -inf.
void filter_logits(std::span<float> z, int64_t allowed, const SamplingParams& p,
                   std::span<const int32_t> seen);

}  // namespace temper::kernels
