// Arbitrary bytes through small tokenizers of four families: ids in range, streaming equal to
// decoding, and for byte-level vocabularies the text comes back.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "temper/core/error.h"
#include "temper/text/stream_decoder.h"
#include "temper/text/tokenizer.h"
#include "temper/text/unicode.h"

namespace {

temper::Tokenizer load(const std::string& family) {
  std::ifstream file(std::string(TEMPER_SOURCE_DIR) + "/tests/golden/tokenizers/" + family +
                     ".json");
  std::stringstream content;
  content << file.rdbuf();
  return temper::Tokenizer::from_json(content.str(), family);
}

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const temper::Tokenizer& tokenizer, std::string_view text, bool comes_back) {
  const std::vector<int32_t> ids = tokenizer.encode(text);
  temper::StreamDecoder stream(tokenizer, false);
  std::string streamed;
  for (const int32_t id : ids) {
    require(id >= 0 && id < tokenizer.vocab_size());
    streamed += stream.push(id);
    require(temper::unicode::is_valid_utf8(streamed));
  }
  streamed += stream.finish();
  require(streamed == tokenizer.decode(ids, false));
  if (comes_back) require(streamed == temper::unicode::to_valid_utf8(text));
  (void)tokenizer.encode(text, {.add_special_tokens = true, .allow_special = true});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const temper::Tokenizer llama3 = load("llama3");
  static const temper::Tokenizer qwen = load("qwen");
  static const temper::Tokenizer mistral = load("mistral");
  static const temper::Tokenizer words = load("words");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check(llama3, text, true);
  check(qwen, text, false);  // NFC
  check(mistral, text, false);
  check(words, text, false);
  return 0;
}
