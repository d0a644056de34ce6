// Any bytes must give a dataset or an Error, and what was read must be self-consistent.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "temper/core/error.h"
#include "temper/data/dataset.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const bool lenient : {false, true}) {
    temper::ReadOptions options;
    options.skip_bad = lenient;
    options.lossy_utf8 = lenient;
    options.max_line_bytes = 4096;
    try {
      const temper::Dataset read = temper::parse_jsonl(text, "fuzz", options);
      for (const auto& example : read.examples) {
        const bool one_form = example.prompt.empty() != example.messages.empty();
        if (!one_form || example.id != temper::prompt_id(example)) std::abort();
      }
    } catch (const temper::Error&) {
    }
  }
  return 0;
}
