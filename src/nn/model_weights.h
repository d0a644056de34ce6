#pragma once

#include <memory>

#include "temper/formats/model_source.h"
#include "temper/nn/causal_lm.h"

namespace temper {

/// Reads row-major [rows, k] of a part: of the float32 master, or else of what products read.
void read_part(const Parameter& p, const ParameterPart& part, float* rows);

/// The weights of `model`, which must outlive the result, as a file would give them: what its
/// products read for matrices that are kept in 16 bits alone, else the float32 masters.
[[nodiscard]] std::shared_ptr<const WeightSource> weights_of(const CausalLM& model);

/// `weights` under names without `prefix`, for files that put one before every name.
[[nodiscard]] std::shared_ptr<const WeightSource> without_prefix(
    std::shared_ptr<const WeightSource> weights, std::string prefix);

}  // namespace temper
