// Model output is arbitrary text: a number must be found or not, and equal itself.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "temper/reward/number.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto number = temper::answer_number(text);
  if (number && !(number->equals(*number) && number->near(*number, 0))) std::abort();
  // A text that is a number as a whole is its own answer.
  const auto whole = temper::Number::parse(text);
  if (whole && !(number && number->equals(*whole))) std::abort();
  return 0;
}
