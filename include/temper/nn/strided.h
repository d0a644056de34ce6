#pragma once

#include <algorithm>
#include <cstdint>

namespace temper {

/// Copies a [rows, columns] block between row strides (in floats).
inline void copy_columns(const float* from, int64_t from_stride, float* to, int64_t to_stride,
                         int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(from + r * from_stride, columns, to + r * to_stride);
  }
}

}  // namespace temper
