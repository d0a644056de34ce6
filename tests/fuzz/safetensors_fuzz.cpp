// Any bytes: an Error, or a file whose tensors can all be read.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "temper/core/error.h"
#include "temper/formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto bytes = std::as_bytes(std::span(data, size));
    const auto file = temper::SafetensorsFile::parse(nullptr, bytes, "fuzz");
    for (const std::string& name : file.names()) {
      const temper::TensorView& view = file.at(name);
      const size_t element = temper::dtype_size(view.dtype);
      if (element == 0) continue;  // of an unknown dtype nothing is promised but the bytes
      if (view.data.size() != static_cast<size_t>(view.numel()) * element) __builtin_trap();
      std::vector<float> values(view.data.size() / element);
      try {
        temper::copy_to_float(view, values);
      } catch (const temper::Error&) {  // an integer dtype
      }
    }
  } catch (const temper::Error&) {
  }
  return 0;
}
