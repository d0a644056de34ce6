#include "temper/formats/tensor_view.h"

#include <cstring>

#include "temper/core/error.h"

namespace temper {
namespace {

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class T, class Convert>
void widen(std::span<const std::byte> data, std::span<float> out, Convert convert) {
  const std::byte* p = data.data();
  for (size_t i = 0; i < out.size(); ++i) out[i] = convert(load<T>(p + i * sizeof(T)));
}

template <class T, class Convert>
void narrow(std::span<const float> values, std::span<std::byte> out, Convert convert) {
  std::byte* p = out.data();
  for (size_t i = 0; i < values.size(); ++i) {
    const T bits = convert(values[i]);
    std::memcpy(p + i * sizeof(T), &bits, sizeof bits);
  }
}

}  // namespace

int64_t TensorView::numel() const {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

void copy_to_float(const TensorView& tensor, std::span<float> out) {
  const bool is_float = tensor.dtype == DType::kF64 || tensor.dtype == DType::kF32 ||
                        tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16;
  TEMPER_CHECK(is_float, "[copy_to_float] expected F64, F32, F16 or BF16 data, got ",
               dtype_name(tensor.dtype));
  const auto numel = static_cast<size_t>(tensor.numel());
  TEMPER_CHECK(out.size() == numel && tensor.data.size() == numel * dtype_size(tensor.dtype),
               "[copy_to_float] a tensor of ", numel, " elements has ", tensor.data.size(),
               " bytes of ", dtype_name(tensor.dtype), " and a buffer of ", out.size(), " floats");
  if (numel == 0) return;
  switch (tensor.dtype) {
    case DType::kF64:
      return widen<double>(tensor.data, out, [](double v) { return static_cast<float>(v); });
    case DType::kF16: return widen<uint16_t>(tensor.data, out, half_to_float);
    case DType::kBF16: return widen<uint16_t>(tensor.data, out, bf16_to_float);
    default: std::memcpy(out.data(), tensor.data.data(), tensor.data.size());
  }
}

void copy_from_float(std::span<const float> values, DType dtype, std::span<std::byte> out) {
  TEMPER_CHECK(dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16,
               "[copy_from_float] expected F32, F16 or BF16, got ", dtype_name(dtype));
  TEMPER_CHECK(out.size() == values.size() * dtype_size(dtype), "[copy_from_float] ", values.size(),
               " values of ", dtype_name(dtype), " do not fill ", out.size(), " bytes");
  if (values.empty()) return;
  switch (dtype) {
    case DType::kF16: return narrow<uint16_t>(values, out, float_to_half);
    case DType::kBF16: return narrow<uint16_t>(values, out, float_to_bf16);
    default: std::memcpy(out.data(), values.data(), out.size());
  }
}

}  // namespace temper
