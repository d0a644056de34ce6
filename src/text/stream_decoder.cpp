#include "temper/text/stream_decoder.h"

#include <utility>

#include "tokenizer_impl.h"

namespace temper {

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)),
      skip_special_(skip_special),
      stream_(tokenizer_.impl_->decode_stream(skip_special)) {}

StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  std::string out;
  stream_->push(id, &out);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  stream_->finish(&out);
  stream_ = tokenizer_.impl_->decode_stream(skip_special_);
  return out;
}

}  // namespace temper
