#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// Frequency scaling of Llama 3.1 (`rope_type: llama3`): long wavelengths are divided by `factor`,
/// short ones kept, those between interpolated.
struct Llama3Scaling {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_positions = 8192;  ///< `original_max_position_embeddings`, tokens.
};

/// cos and sin of position * theta^(-2 i / head_dim) (Su et al. 2021, eq. 15), fp32.
struct RopeTable {
  std::vector<float> cos;  ///< [positions, half]
  std::vector<float> sin;  ///< [positions, half]
  int64_t positions = 0;
  int64_t half = 0;  ///< head_dim / 2.
};

/// Builds the table. Frequencies and angles are rounded to fp32 where the published models' Python
/// code rounds them, since an angle at position 8000 amplifies one rounding to 5e-4.
/// @param scaling  Null for plain rope.
/// @throws Error if head_dim is odd or below 2, positions is negative or theta is not above 0.
[[nodiscard]] RopeTable make_rope_table(int64_t head_dim, int64_t positions, double theta,
                                        const Llama3Scaling* scaling = nullptr);

/// Rotates in place, halves layout: with x1 the first and x2 the second half of a head,
/// {x1 cos - x2 sin, x2 cos + x1 sin}. `inverse` rotates back, which is the backward.
/// @param x          [positions.size(), heads * head_dim], rows `row_stride` floats apart.
/// @param positions  One a row, in [0, table.positions).
/// @throws Error if a position lies outside the table.
/// @note Products are rounded before they are added. The bits of a row depend on that row alone.
void rope(float* x, int64_t row_stride, std::span<const int32_t> positions, int64_t heads,
          const RopeTable& table, bool inverse);

namespace cuda {

struct RopeArgs {
  float* x = nullptr;  ///< [rows, heads * 2 * half], rows `row_stride` floats apart.
  int64_t row_stride = 0;
  const int32_t* positions = nullptr;  ///< [rows], each in [0, positions of the table): the caller
                                       ///< checks them.
  int64_t rows = 0;
  int64_t heads = 0;
  const float* cos = nullptr;  ///< [positions, half], of a `RopeTable`.
  const float* sin = nullptr;  ///< [positions, half]
  int64_t half = 0;            ///< head_dim / 2.
  bool inverse = false;
};
/// The same bits as the CPU's.
Status rope(const RopeArgs& args, Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
