#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "temper/text/tokenizer.h"

namespace temper {

/// Decoding in progress. What the calls append to `out` over time, joined, is the decoded text.
class DecodeStream {
 public:
  virtual ~DecodeStream() = default;
  virtual void push(int32_t id, std::string* out) = 0;
  /// Appends what waits. The stream must not be used afterwards.
  virtual void finish(std::string* out) = 0;
};

/// What a kind of tokenizer provides. Immutable after construction.
class Tokenizer::Impl {
 public:
  virtual ~Impl() = default;
  /// @param text  well-formed UTF-8.
  [[nodiscard]] virtual std::vector<int32_t> encode(std::string_view text,
                                                    const EncodeOptions& options) const = 0;
  /// The stream may refer to this object, which must outlive it.
  [[nodiscard]] virtual std::unique_ptr<DecodeStream> decode_stream(bool skip_special) const = 0;
  [[nodiscard]] virtual int64_t vocab_size() const = 0;
  [[nodiscard]] virtual std::optional<int32_t> token_to_id(std::string_view token) const = 0;
  [[nodiscard]] virtual std::optional<std::string> id_to_token(int32_t id) const = 0;
  [[nodiscard]] virtual bool is_special(int32_t id) const = 0;
};

[[nodiscard]] std::shared_ptr<const Tokenizer::Impl> make_json_tokenizer(std::string_view json,
                                                                         std::string_view source);
[[nodiscard]] std::shared_ptr<const Tokenizer::Impl> make_sentencepiece_tokenizer(
    std::string_view model, std::string_view source);

}  // namespace temper
