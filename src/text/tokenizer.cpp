#include "temper/text/tokenizer.h"

#include "temper/core/error.h"
#include "temper/text/unicode.h"
#include "tokenizer_impl.h"

namespace temper {

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string_view source) {
  return Tokenizer(make_json_tokenizer(tokenizer_json, source));
}

Tokenizer Tokenizer::from_sentencepiece(std::string_view model_bytes, std::string_view source) {
  return Tokenizer(make_sentencepiece_tokenizer(model_bytes, source));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (unicode::is_valid_utf8(text)) return impl_->encode(text, options);
  return impl_->encode(unicode::to_valid_utf8(text), options);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  const std::unique_ptr<DecodeStream> stream = impl_->decode_stream(skip_special);
  std::string out;
  for (const int32_t id : ids) stream->push(id, &out);
  stream->finish(&out);
  return out;
}

int64_t Tokenizer::vocab_size() const { return impl_->vocab_size(); }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  return impl_->token_to_id(token);
}

std::string Tokenizer::id_to_token(int32_t id) const {
  std::optional<std::string> token = impl_->id_to_token(id);
  TEMPER_CHECK(token.has_value(), "[id_to_token] no token has id ", id,
               "; the vocabulary's ids lie in [0, ", vocab_size(), ")");
  return *std::move(token);
}

bool Tokenizer::is_special(int32_t id) const { return impl_->is_special(id); }

}  // namespace temper
