// The conversions of the CUDA toolkit's own headers, which work on the host. Apart from the tests,
// as the emulator's types have the same names.
#include "kernels/cuda_sim/toolkit_conversions.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace temper::test {

uint16_t toolkit_bf16(float v) { return __bfloat16_as_ushort(__float2bfloat16_rn(v)); }
float toolkit_float_of_bf16(uint16_t bits) { return __bfloat162float(__ushort_as_bfloat16(bits)); }
uint16_t toolkit_half(float v) { return __half_as_ushort(__float2half_rn(v)); }
float toolkit_float_of_half(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

}  // namespace temper::test
