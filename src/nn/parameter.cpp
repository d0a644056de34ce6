#include "temper/nn/parameter.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "temper/core/error.h"

namespace temper {

at::Tensor float_zeros(int64_t elements) { return at::zeros({elements}, at::kFloat); }

int64_t Parameter::elements() const { return matrix ? kernels::panel_elements(n, k) : n; }

uint16_t* Parameter::half_data(at::ScalarType type) const {
  return half.defined() && half.scalar_type() == type ? static_cast<uint16_t*>(half.data_ptr())
                                                      : nullptr;
}

kernels::PackedWeight Parameter::packed() const {
  return {.f32 = value.defined() ? data() : nullptr,
          .bf16 = half_data(at::kBFloat16),
          .n = n,
          .k = k,
          .product = product,
          .f16 = half_data(at::kHalf),
          .i8 = int8.defined() ? int8.data_ptr<int8_t>() : nullptr,
          .scales = scales.defined() ? scales.data_ptr<float>() : nullptr};
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
  if (int8.defined()) {
    kernels::panels_to_int8(values, n, k, int8.data_ptr<int8_t>(), scales.data_ptr<float>());
  }
}

}  // namespace temper
