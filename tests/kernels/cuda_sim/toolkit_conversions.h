#pragma once

#include <cstdint>

namespace temper::test {

uint16_t toolkit_bf16(float v);
float toolkit_float_of_bf16(uint16_t bits);
uint16_t toolkit_half(float v);
float toolkit_float_of_half(uint16_t bits);

}  // namespace temper::test
