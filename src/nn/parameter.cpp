#include "temper/nn/parameter.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "temper/core/error.h"
#include "temper/kernels/blocks.h"

namespace temper {

at::Tensor float_zeros(int64_t elements) { return at::zeros({elements}, at::kFloat); }

int64_t Parameter::elements() const { return matrix ? kernels::panel_elements(n, k) : n; }

uint16_t* Parameter::half_data(at::ScalarType type) const {
  return half.defined() && half.scalar_type() == type ? static_cast<uint16_t*>(half.data_ptr())
                                                      : nullptr;
}

kernels::PackedWeight Parameter::packed() const {
  if (scales.defined() && scales.scalar_type() == at::kHalf) return packed_blocks();
  return {.f32 = value.defined() ? data() : nullptr,
          .bf16 = half_data(at::kBFloat16),
          .n = n,
          .k = k,
          .product = product,
          .f16 = half_data(at::kHalf),
          .i8 = int8.defined() ? int8.data_ptr<int8_t>() : nullptr,
          .scales = scales.defined() ? scales.data_ptr<float>() : nullptr};
}

kernels::PackedWeight Parameter::packed_blocks() const {
  kernels::PackedWeight w{.n = n, .k = k, .product = product};
  const int8_t* codes = int8.data_ptr<int8_t>();
  if (int8.numel() == elements()) {
    w.codes8 = codes;
  } else {
    w.codes4 = reinterpret_cast<const uint8_t*>(codes);
  }
  w.block_scales = static_cast<const uint16_t*>(scales.data_ptr());
  const int64_t count = kernels::block_elements(n, k);
  if (scales.numel() > count) w.block_minimums = w.block_scales + count;
  return w;
}

void Parameter::set_blocks(std::span<const WeightBlocks> blocks) {
  TEMPER_CHECK(matrix && blocks.size() == parts.size(), "[Parameter] ", name, " has ", parts.size(),
               " parts, not ", blocks.size());
  const int64_t across = (k + kernels::kBlock - 1) / kernels::kBlock;
  bool minimums = false;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const auto rows = static_cast<size_t>(parts[i].rows),
               scale_count = rows * static_cast<size_t>(across);
    const WeightBlocks& b = blocks[i];
    TEMPER_CHECK(b.bits == blocks.front().bits && (b.bits == 4 || b.bits == 8) &&
                     b.codes.size() == rows * static_cast<size_t>(k) &&
                     b.scales.size() == scale_count &&
                     (b.minimums.empty() || b.minimums.size() == scale_count),
                 "[Parameter] ", parts[i].name, ": the blocks are not those of its shape");
    minimums = minimums || !b.minimums.empty();
  }
  const int64_t count = kernels::block_elements(n, k);
  int8 = at::zeros({kernels::block_code_bytes(n, k, blocks.front().bits)}, at::kChar);
  scales = at::zeros({minimums ? 2 * count : count}, at::kHalf);
  auto* to = static_cast<uint16_t*>(scales.data_ptr());
  for (size_t i = 0; i < blocks.size(); ++i) {
    const WeightBlocks& b = blocks[i];
    kernels::pack_blocks(
        {b.bits, parts[i].rows, k, b.codes.data(), b.scales.data(),
         b.minimums.empty() ? nullptr : b.minimums.data()},
        parts[i].row_begin, n,
        {reinterpret_cast<uint8_t*>(int8.data_ptr<int8_t>()), to, minimums ? to + count : nullptr});
  }
}

size_t Parameter::bytes() const {
  size_t total = 0;
  for (const auto* t : {&value, &half, &int8, &scales, &grad}) {
    if (t->defined()) total += static_cast<size_t>(t->numel()) * t->element_size();
  }
  return total;
}

void Parameter::set_part(const ParameterPart& part, const float* rows) {
  TEMPER_CHECK(value.defined(), "[Parameter] ", name, " is frozen and has no float32 values");
  ++version;
  if (matrix) {
    kernels::pack_rows(rows, part.rows, k, part.row_begin, data());
  } else {
    std::copy_n(rows, part.rows, data() + part.row_begin);
  }
}

void Parameter::get_part(const ParameterPart& part, const at::Tensor& of, float* rows) const {
  const float* from = of.data_ptr<float>();
  if (matrix) {
    kernels::unpack_rows(from, part.row_begin, part.rows, k, rows);
  } else {
    std::copy_n(from + part.row_begin, part.rows, rows);
  }
}

void Parameter::refresh_half() {
  if (half.defined() || int8.defined()) round_from(data());
}

void Parameter::round_from(const float* values) {
  if (uint16_t* to = half_data(at::kBFloat16)) kernels::panels_to_bf16(values, elements(), to);
  if (uint16_t* to = half_data(at::kHalf)) kernels::panels_to_f16(values, elements(), to);
  if (int8.defined() && scales.scalar_type() == at::kFloat) {
    kernels::panels_to_int8(values, n, k, int8.data_ptr<int8_t>(), scales.data_ptr<float>());
  }
}

}  // namespace temper
