#pragma once

#include <vector>

#include "temper/formats/model_source.h"
#include "temper/nn/parameter.h"

namespace temper {

/// The blocks of a matrix's parts (WeightDType::kQ4): as the file has them, where it has all parts
/// in blocks of 32 of the same bits; else rounded. @throws Error naming a tensor with a number of
/// 65520 and above.
[[nodiscard]] std::vector<WeightBlocks> blocks_of(const Parameter& p, const WeightSource& weights);

}  // namespace temper
