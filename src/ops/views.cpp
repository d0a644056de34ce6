// Raw memory of the kernel layer as tensors.
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/stack.h>

#include "reference_ops.h"

namespace temper::ops::reference {

using namespace kernels;

at::Tensor matrix(const float* p, int64_t rows, int64_t columns, int64_t stride) {
  return at::from_blob(const_cast<float*>(p), {rows, columns}, {stride, 1}, at::kFloat);
}

at::Tensor vector(const float* p, int64_t n) {
  return at::from_blob(const_cast<float*>(p), {n}, at::kFloat);
}

at::Tensor int_matrix(int32_t* p, int64_t rows, int64_t columns) {
  return at::from_blob(p, {rows, columns}, at::kInt);
}

at::Tensor index(std::span<const int32_t> ids) {
  const auto n = static_cast<int64_t>(ids.size());
  return at::from_blob(const_cast<int32_t*>(ids.data()), {n}, at::kInt).to(at::kLong);
}

at::Tensor operand(const at::Tensor& x, Product product) {
  return product == Product::kDot ? x.to(at::kBFloat16).to(at::kFloat) : x;
}

namespace {

/// [panels, 32, depth] of halves [panels, blocks, 32], each for kBlock steps.
at::Tensor over_blocks(const uint16_t* p, int64_t panels, int64_t k) {
  const int64_t blocks = (k + kBlock - 1) / kBlock;
  return at::from_blob(const_cast<uint16_t*>(p), {panels, blocks, kPanel}, at::kHalf)
      .to(at::kFloat)
      .permute({0, 2, 1})
      .repeat_interleave(kBlock, 2)
      .narrow(2, 0, panel_depth(k));
}

/// [panels, 32, depth] of blocks.
at::Tensor block_weights(const PackedWeight& w) {
  const int64_t panels = panel_count(w.n), depth = panel_depth(w.k);
  at::Tensor codes;
  if (w.codes8 != nullptr) {
    codes = at::from_blob(const_cast<int8_t*>(w.codes8), {panels, depth, kPanel}, at::kChar)
                .permute({0, 2, 1});
  } else {
    const at::Tensor pairs =
        at::from_blob(const_cast<uint8_t*>(w.codes4), {panels, depth / 2, kPanel}, at::kByte)
            .permute({0, 2, 1});
    codes = at::stack({pairs.bitwise_and(15), pairs.bitwise_right_shift(4)}, 3)
                .reshape({panels, kPanel, depth});
  }
  const at::Tensor scales = over_blocks(w.block_scales, panels, w.k);
  const at::Tensor products = codes.to(at::kFloat) * scales;
  if (w.block_minimums != nullptr) return products + over_blocks(w.block_minimums, panels, w.k);
  return w.codes8 != nullptr ? products : products - 8 * scales;
}

}  // namespace

at::Tensor weight(const PackedWeight& w) {
  const int64_t panels = panel_count(w.n), depth = panel_depth(w.k);
  at::Tensor rows;
  if (w.blocks()) {
    rows = block_weights(w);
  } else if (w.i8 != nullptr) {
    const int64_t chunks = scale_elements(w.n, w.k) / (panels * kPanel);
    const at::Tensor scales =
        at::from_blob(const_cast<float*>(w.scales), {chunks, panels, kPanel}, at::kFloat)
            .permute({1, 2, 0})
            .repeat_interleave(kScaleChunk, 2)
            .narrow(2, 0, depth);
    rows = at::from_blob(const_cast<int8_t*>(w.i8), {panels, depth, kPanel}, at::kChar)
               .to(at::kFloat)
               .permute({0, 2, 1}) *
           scales;
  } else if (const uint16_t* half = w.bf16 != nullptr ? w.bf16 : w.f16; half != nullptr) {
    const at::ScalarType type = w.bf16 != nullptr ? at::kBFloat16 : at::kHalf;
    rows = at::from_blob(const_cast<uint16_t*>(half), {panels, depth / 2, kPanel, 2}, type)
               .to(at::kFloat)
               .permute({0, 2, 1, 3});
  } else {
    rows = at::from_blob(const_cast<float*>(w.f32), {panels, depth, kPanel}, at::kFloat)
               .permute({0, 2, 1});
  }
  return rows.reshape({panels * kPanel, depth}).narrow(0, 0, w.n).narrow(1, 0, w.k);
}

void add_to_panels(float* panels, const at::Tensor& rows) {
  const int64_t n = rows.size(0), k = rows.size(1);
  const int64_t count = panel_count(n), depth = panel_depth(k);
  const at::Tensor padded = at::constant_pad_nd(rows, {0, depth - k, 0, count * kPanel - n});
  at::from_blob(panels, {count, depth, kPanel}, at::kFloat)
      .add_(padded.view({count, kPanel, depth}).transpose(1, 2));
}

}  // namespace temper::ops::reference
