#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "temper/core/dtype.h"

namespace temper {

/// A tensor that lies in a file's bytes: row-major, contiguous, little-endian. The data may start
/// at any byte address: read it by `copy_to_float` or `memcpy`, never through a cast pointer.
struct TensorView {
  DType dtype = DType::kUnknown;
  std::vector<int64_t> shape;         ///< Sizes >= 0; empty for a scalar.
  std::span<const std::byte> data;    ///< numel * dtype_size bytes (any length for `kUnknown`).
  std::shared_ptr<const void> owner;  ///< Keeps `data` alive (the mapping).

  /// Product of the shape; 1 for a scalar. Readers have checked that it fits in 63 bits.
  [[nodiscard]] int64_t numel() const;
};

/// Widens F64, F32, F16 or BF16 data to float (F64 rounds to nearest); unaligned data is fine.
/// @param out  exactly `numel` floats.
/// @throws Error naming the dtype for any other type, or when sizes disagree.
void copy_to_float(const TensorView& tensor, std::span<float> out);

/// Rounds floats to F32, F16 or BF16 bytes (nearest, ties to even).
/// @param out  exactly `values.size() * dtype_size(dtype)` bytes, at any address.
/// @throws Error naming the dtype for any other type, or when sizes disagree.
void copy_from_float(std::span<const float> values, DType dtype, std::span<std::byte> out);

/// A tensor that is to be written; `data` is row-major and contiguous, and outlives the call.
struct NamedTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

}  // namespace temper
