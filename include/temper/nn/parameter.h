#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "temper/core/torch.h"
#include "temper/formats/model_source.h"
#include "temper/kernels/linear.h"

namespace temper {

/// A tensor of a checkpoint that occupies rows of a parameter (q, k and v share one matrix).
struct ParameterPart {
  std::string name;  ///< Hugging Face name.
  int64_t row_begin = 0;
  int64_t rows = 0;
};

/// One weight of a model with all that belongs to it. A matrix [n, k] is stored as panels
/// (kernels/linear.h): value, gradient and optimizer state share that layout, so the optimizer runs
/// elementwise and its result is what the next forward reads. A vector (norm, bias) is plain [n].
/// The model's caller owns the thread: a forward and an update must not overlap.
struct Parameter {
  std::string name;
  int64_t n = 0;
  int64_t k = 1;
  bool matrix = false;
  kernels::Product product = kernels::Product::kFma;  ///< How products with this matrix are summed.
  std::vector<ParameterPart> parts;
  at::Tensor value;   ///< float32 master; undefined for a frozen matrix kept in fewer bits alone.
  at::Tensor half;    ///< Panels in bfloat16 or float16 that products read, or undefined.
  at::Tensor int8;    ///< The same in int8, or codes of blocks, of frozen matrices.
  at::Tensor scales;  ///< Beside `int8`: float32, or of blocks half precision, minimums behind them.
  at::Tensor grad;    ///< float32, or undefined when frozen.
  int64_t version = 0;  ///< Whoever changes `value` adds to it.

  [[nodiscard]] int64_t elements() const;
  [[nodiscard]] float* data() const { return value.data_ptr<float>(); }
  [[nodiscard]] float* grad_data() const {
    return grad.defined() ? grad.data_ptr<float>() : nullptr;
  }
  /// The panels of `half` where they are of this type, else null.
  [[nodiscard]] uint16_t* half_data(at::ScalarType type) const;
  [[nodiscard]] kernels::PackedWeight packed() const;
  [[nodiscard]] size_t bytes() const;

  /// Replaces `int8` and `scales` by blocks of every part, all of as many bits. Where one part has
  /// minimums, all get them. @throws Error for other sizes.
  void set_blocks(std::span<const WeightBlocks> blocks);
  /// Writes row-major [rows, k] values of one part into `value`.
  void set_part(const ParameterPart& part, const float* rows);
  /// Reads one part back as row-major [rows, k]. @param of  `value` or a tensor laid out like it.
  void get_part(const ParameterPart& part, const at::Tensor& of, float* rows) const;
  /// Rounds `value` into `half` or `int8`, where there is one. Blocks are not made here.
  void refresh_half();
  /// The same from float32 values that are laid out like `value`.
  void round_from(const float* values);
  [[nodiscard]] kernels::PackedWeight packed_blocks() const;  ///< Of `packed`, in blocks.
};

/// Float32 [elements] filled with zeros.
[[nodiscard]] at::Tensor float_zeros(int64_t elements);

}  // namespace temper
