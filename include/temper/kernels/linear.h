#pragma once

#include <cstdint>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// Output rows of a weight that share one panel.
inline constexpr int64_t kPanel = 32;

/// Panels that hold `n` output rows.
[[nodiscard]] constexpr int64_t panel_count(int64_t n) { return (n + kPanel - 1) / kPanel; }
/// Steps of k that a panel holds: k rounded up to pairs.
[[nodiscard]] constexpr int64_t panel_depth(int64_t k) { return (k + 1) / 2 * 2; }
/// Elements of the panel storage of an [n, k] weight, padded with zeros to whole panels and pairs.
[[nodiscard]] constexpr int64_t panel_elements(int64_t n, int64_t k) {
  return panel_count(n) * kPanel * panel_depth(k);
}
/// Steps of k that share a scale of int8 panels: a chunk of Product::kFma.
inline constexpr int64_t kScaleChunk = 256;
/// Scales of an [n, k] weight in int8 panels: one for each output row of whole panels and chunk.
[[nodiscard]] constexpr int64_t scale_elements(int64_t n, int64_t k) {
  return (k + kScaleChunk - 1) / kScaleChunk * panel_count(n) * kPanel;
}

/// Steps of k that share a scale of quantized blocks.
inline constexpr int64_t kBlock = 32;
/// Scales of an [n, k] weight in block panels: one for each output row of whole panels and block.
[[nodiscard]] constexpr int64_t block_elements(int64_t n, int64_t k) {
  return panel_count(n) * kPanel * ((k + kBlock - 1) / kBlock);
}

/// How products are summed: two contracts, each the same bits for any number of rows and threads.
enum class Product {
  /// float32 activations; one fused-multiply-add chain for each chunk of 256 steps.
  kFma,
  /// Activations rounded to bf16 (nearest even, denormals to zero) on bf16 weights, accumulated in
  /// float32: a pair of neighbouring steps (k, k + 1) adds first its odd, then its even product, in
  /// chunks of 512 steps. Twice the rate where the CPU has the instruction, and the same bits by
  /// fma where it has not (a partial sum below 2^-126 excepted, which the instruction takes for 0).
  kDot,
};
/// Whether this CPU has an instruction for kDot.
[[nodiscard]] bool has_dot_instruction();

/// A weight [n, k] stored as panels of 32 output rows in lanes, k ascending. In float32 a panel is
/// [panel_depth(k)][32]. In bf16 and in half precision it is [panel_depth(k) / 2][32][2]: a 32-bit
/// word holds two neighbouring k of one output row, which is what a pairwise dot instruction reads,
/// on a CPU and on a tensor core. In int8 it is bytes [panel_depth(k)][32], an element's value being
/// its byte times scales[k / 256][output row], `scales` a float32 [ceil(k / 256)][32 panel_count(n)].
/// Blocks (kernels/blocks.h) hold codes and half-precision scales, and maybe minimums, of 32 steps of
/// an output row: a weight is float32(scale * code + minimum). `codes4` is [panel_depth(k) / 2][32]
/// bytes a panel, an even step in the low and the next in the high four bits; `codes8` is as `i8`.
/// Scales and minimums are [panel][ceil(k / 32)][32]. Without minimums they are -8 scales under
/// `codes4` and 0 under `codes8`.
/// Products read `codes4` or `codes8` where one is set, else `i8`, else `bf16`, else `f16`, else
/// `f32`; they widen what they read exactly.
struct PackedWeight {
  const float* f32 = nullptr;
  const uint16_t* bf16 = nullptr;
  int64_t n = 0;
  int64_t k = 0;
  Product product = Product::kFma;  ///< kDot needs `bf16`.
  const uint16_t* f16 = nullptr;    ///< IEEE half precision.
  const int8_t* i8 = nullptr;       ///< For frozen weights, and on the CPU alone.
  const float* scales = nullptr;    ///< Beside `i8`: see above.
  const uint8_t* codes4 = nullptr;  ///< Blocks: for frozen weights, and on the CPU alone.
  const int8_t* codes8 = nullptr;
  const uint16_t* block_scales = nullptr;
  const uint16_t* block_minimums = nullptr;

  [[nodiscard]] constexpr bool blocks() const { return codes4 != nullptr || codes8 != nullptr; }
  /// Whether it is of a type that gets no gradient.
  [[nodiscard]] constexpr bool frozen() const { return i8 != nullptr || blocks(); }
};
/// Whether a weight's product can be computed: kDot multiplies bf16 panels alone.
[[nodiscard]] constexpr bool product_has_panels(const PackedWeight& w) {
  return w.product == Product::kFma || (w.bf16 != nullptr && !w.frozen());
}

/// Row-major [n, k] into the rows [row_begin, row_begin + n) of panels that hold `total_n` rows.
void pack_rows(const float* rows, int64_t n, int64_t k, int64_t row_begin, float* panels);
/// The inverse of `pack_rows`.
void unpack_rows(const float* panels, int64_t row_begin, int64_t n, int64_t k, float* rows);
/// Rounds fp32 panels to bf16 panels, nearest even. `elements` is a multiple of 64.
void panels_to_bf16(const float* panels, int64_t elements, uint16_t* out);
/// The same to half precision: 65520 and above become infinity, 2^-25 and below zero.
void panels_to_f16(const float* panels, int64_t elements, uint16_t* out);
/// Quantizes fp32 panels of an [n, k] weight, all finite, symmetrically: the scale of a row's chunk
/// is its largest magnitude / 127 (2^-126 at least, and 0 for a chunk of zeros), and a number is
/// the nearest multiple of it, so it changes by half a scale at most. Padding becomes zeros.
/// @param out  [panel_elements(n, k)]  @param scales  [scale_elements(n, k)]
void panels_to_int8(const float* panels, int64_t n, int64_t k, int8_t* out, float* scales);

/// y = x W^T (+ bias) or y += x W^T (+ bias). Exactness: k is cut into chunks; a chunk is one chain
/// over ascending k from zero, and chunk sums are added to the output in order. So a row's bits
/// depend on that row and W alone: not on `rows`, the number of threads or the instruction set (all
/// that have fma). Over int8 panels a chain adds x times bytes, and its sum is multiplied by the
/// chunk's scale, rounded once, before anything is added to it. Over blocks the bits are those of
/// the float32 panels that hold the widened weights.
/// @throws Error for kDot without bf16 panels, as its input gradient does.
struct LinearArgs {
  const float* x = nullptr;  ///< [rows, k]
  int64_t x_stride = 0;      ///< In floats.
  PackedWeight weight;
  const float* bias = nullptr;  ///< [n] or null.
  float* y = nullptr;           ///< [rows, n]
  int64_t y_stride = 0;
  int64_t rows = 0;
  bool add = false;  ///< Add to y (a residual) instead of overwriting it.
  /// [rows, n / 2] contiguous, or null: swiglu(y) as well, taken while y is in cache, with the bits
  /// of the op of its own. W then holds the gate's rows before the up rows, and y_stride is n.
  float* swiglu = nullptr;
};
void linear(const LinearArgs& args);

/// dx = dy W, or dx += dy W, in chunks over ascending n as in `linear`. An element of int8 panels
/// is its byte times its scale, rounded once.
struct LinearBackwardInputArgs {
  const float* dy = nullptr;  ///< [rows, n]
  int64_t dy_stride = 0;
  PackedWeight weight;
  float* dx = nullptr;  ///< [rows, k]
  int64_t dx_stride = 0;
  int64_t rows = 0;
  bool add = false;
};
void linear_backward_input(const LinearBackwardInputArgs& args);

/// dW += dy^T x in panel layout and dbias += column sums of dy. Each element continues one chain
/// over ascending rows from its stored value: splitting the rows over several calls gives the same
/// bits (with kDot, which rounds dy and x to bf16 and takes rows in pairs, where every call but the
/// last has an even number of rows).
struct LinearBackwardWeightArgs {
  const float* dy = nullptr;  ///< [rows, n]
  int64_t dy_stride = 0;
  const float* x = nullptr;  ///< [rows, k]
  int64_t x_stride = 0;
  float* dweight = nullptr;  ///< panel_elements(n, k)
  float* dbias = nullptr;    ///< [n] or null.
  int64_t rows = 0;
  int64_t n = 0;
  int64_t k = 0;
  Product product = Product::kFma;
};
void linear_backward_weight(const LinearBackwardWeightArgs& args);

namespace cuda {

/// Panels begin at a multiple of 16 bytes. With kFma the bits are the CPU's. With kDot, on tensor
/// cores, they are the device's own: activations are rounded as on the CPU (denormals stay), 16 steps
/// of k are one instruction, chunks of 256 are added in order; a row's bits do not depend on `rows`
/// or on its place among them, and a call of `linear_backward_weight` continues another where that
/// had a multiple of 16 rows. Up to 16 rows `linear` streams the weight once, for decode. At most
/// 4,194,240 rows. int8 panels and blocks are refused.
Status linear(const LinearArgs& args, Stream stream);
Status linear_backward_input(const LinearBackwardInputArgs& args, Stream stream);
Status linear_backward_weight(const LinearBackwardWeightArgs& args, Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
