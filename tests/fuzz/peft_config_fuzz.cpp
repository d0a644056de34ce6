// Any text: an Error, or settings that read back the same from what is written for them.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "temper/core/error.h"
#include "temper/formats/peft.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  temper::AdapterConfig config;
  std::string written;
  try {
    config = temper::parse_adapter_config({reinterpret_cast<const char*>(data), size}, "fuzz");
    if (config.target_modules.empty()) config.target_modules = {"all-linear"};
    written = temper::adapter_config_json(config);
  } catch (const temper::Error&) {
    return 0;
  }
  const temper::AdapterConfig back = temper::parse_adapter_config(written, "written");
  if (temper::adapter_config_json(back) != written) __builtin_trap();
  (void)config.scale_of("model.layers.0.self_attn.q_proj");
  return 0;
}
