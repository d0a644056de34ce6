// The emulator's bfloat16 and half against the toolkit's headers: all 65536 values, and floats of
// all signs and exponents. Compiled where a toolkit is installed.
#include <cmath>

#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/cuda_sim/toolkit_conversions.h"

namespace temper::test {
namespace {

bool same(float a, float b) {
  return sim::bit_copy<uint32_t>(a) == sim::bit_copy<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

TEST(ToolkitSim, WideningIsThatOfTheToolkit) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    ASSERT_TRUE(same(__bfloat162float({bits}), toolkit_float_of_bf16(bits))) << i;
    ASSERT_TRUE(same(__half2float({bits}), toolkit_float_of_half(bits))) << i;
  }
}

TEST(ToolkitSim, RoundingIsThatOfTheToolkit) {
  for (uint64_t i = 0; i < uint64_t{1} << 32; i += 4093) {
    const auto bits = static_cast<uint32_t>(i);
    const float v = sim::bit_copy<float>(bits);
    ASSERT_EQ(__float2bfloat16_rn(v).bits, toolkit_bf16(v)) << bits;
    ASSERT_EQ(__float2half_rn(v).bits, toolkit_half(v)) << bits;
  }
  // Halfway between two halfs, around the largest, and among the subnormal ones.
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const float low = __half2float({static_cast<uint16_t>(h)});
    const float high = h == 0x7bff ? 65536.0f : __half2float({static_cast<uint16_t>(h + 1)});
    const float middle = (low + high) / 2;
    for (const float v : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) {
      ASSERT_EQ(__float2half_rn(v).bits, toolkit_half(v)) << v;
      ASSERT_EQ(__float2half_rn(-v).bits, toolkit_half(-v)) << -v;
    }
  }
}

}  // namespace
}  // namespace temper::test
