// A hostile tokenizer.json: it is refused with an Error, or it encodes and decodes without harm.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "temper/core/error.h"
#include "temper/text/tokenizer.h"
#include "temper/text/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = temper::Tokenizer::from_json(json, "fuzz");
    const auto ids = tokenizer.encode("<s> It's 12\u00e9\u0301\n <|im_end|>\u4e00 aab  \xff",
                                      {.add_special_tokens = true, .allow_special = true});
    for (const int32_t id : ids) {
      if (id < 0 || id >= tokenizer.vocab_size()) __builtin_trap();
    }
    if (!temper::unicode::is_valid_utf8(tokenizer.decode(ids, false))) __builtin_trap();
  } catch (const temper::Error&) {
  }
  return 0;
}
