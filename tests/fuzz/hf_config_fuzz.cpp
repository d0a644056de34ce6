// Any JSON: an Error, or a config that reads back the same from what is written for it.

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"
#include "temper/formats/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using Json = nlohmann::ordered_json;
  const Json json = Json::parse(data, data + size, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return 0;
  temper::ModelConfig config;
  try {
    config = temper::parse_model_config(json, "fuzz");
  } catch (const temper::Error&) {
    return 0;
  }
  const Json written = temper::model_config_json(config, &json);
  const temper::ModelConfig back = temper::parse_model_config(written, "written");
  if (temper::model_config_json(back, &json) != written) __builtin_trap();
  return 0;
}
