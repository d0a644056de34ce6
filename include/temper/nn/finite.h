#pragma once

#include <cstdint>
#include <optional>

#include "temper/nn/causal_lm.h"

namespace temper {

/// Where a training forward first left the finite numbers.
struct NonFinite {
  int64_t layer = 0;  ///< Decoder layer whose output it is; -1: the embedding.
  int64_t row = 0;    ///< First such row of the batch.
};

/// The first layer output of `tape` that holds a NaN or an infinity; nothing when all are finite.
/// Reads every kept activation: for a forward that is known to have gone wrong.
[[nodiscard]] std::optional<NonFinite> find_non_finite(const ForwardTape& tape, int64_t hidden_size);

}  // namespace temper
