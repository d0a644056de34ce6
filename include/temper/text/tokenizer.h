#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace temper {

/// What `Tokenizer::encode` does beyond plain text.
struct EncodeOptions {
  /// Run the post-processor, which adds the tokens that the model expects around a text (such as
  /// BOS). Leave it off for text of a chat template: the template writes them itself.
  bool add_special_tokens = false;
  /// Whether the text of a special token, met in the input, becomes its id. Off by default, so that
  /// nobody ends a turn or begins a system message by typing `<|im_end|>` into a prompt.
  bool allow_special = false;
};

/// Text to token ids and back, with the ids that the Python packages `tokenizers` and
/// `sentencepiece` give for the same file. A cheap handle on shared, immutable state: copies are
/// equal, and every const member may be called from several threads at once.
class Tokenizer {
 public:
  /// Reads a `tokenizer.json`: byte-pair encoding over bytes or with byte fallback. Parts that are
  /// not known are refused by their type, never skipped. `truncation` and `padding` are ignored.
  /// @param tokenizer_json  the file's content, at most 128 MiB; it is not trusted.
  /// @param source          a name for error messages, such as the path.
  /// @throws Error naming the source and the part that is at fault.
  [[nodiscard]] static Tokenizer from_json(std::string_view tokenizer_json,
                                           std::string_view source);

  /// Reads a sentencepiece `tokenizer.model`, at most 64 MiB; it is not trusted.
  /// `add_special_tokens` prepends BOS if the model has one; with `allow_special` the text is cut
  /// at control tokens and each part is encoded by itself.
  /// @throws Error naming the source.
  [[nodiscard]] static Tokenizer from_sentencepiece(std::string_view model_bytes,
                                                    std::string_view source);

  /// The ids of `text`. Ill-formed UTF-8 is replaced first, one U+FFFD per maximal subpart, as
  /// Python callers do. Time O(n log n).
  /// @throws Error if a pre-tokenizer's expression exceeds its matching limits on this text, or if
  ///   a character has no token in a model whose unknown token is missing.
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text,
                                            const EncodeOptions& options = {}) const;

  /// The text of `ids`, always well-formed UTF-8. Ids that have no token (a padded vocabulary) give
  /// no text. Spaces are not cleaned up.
  /// @param skip_special  leave special tokens out.
  [[nodiscard]] std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;

  /// The least n such that every token, added ones included, has its id in [0, n).
  [[nodiscard]] int64_t vocab_size() const;

  /// The id of a token in the vocabulary's own spelling (byte-level tokens are spelled in mapped
  /// bytes, so a leading space is U+0120).
  [[nodiscard]] std::optional<int32_t> token_to_id(std::string_view token) const;

  /// A token in the vocabulary's own spelling. @throws Error if no token has this id.
  [[nodiscard]] std::string id_to_token(int32_t id) const;

  /// Whether `decode` leaves this id out by default; false for ids that have no token.
  [[nodiscard]] bool is_special(int32_t id) const;

  class Impl;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace temper
