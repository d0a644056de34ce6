#pragma once

#include <cstdint>

namespace temper::kernels {

/// Rows [row, row + rows) of logits, `padded` floats apart; columns past the vocabulary are -inf.
struct LogitsTile {
  float* z;
  int64_t padded;
  int64_t row;
  int64_t rows;
};

}  // namespace temper::kernels
