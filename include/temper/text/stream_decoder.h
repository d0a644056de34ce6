#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "temper/text/tokenizer.h"

namespace temper {

class DecodeStream;

/// Decodes ids one at a time. What `push` and `finish` return, joined, is `decode` of all the ids.
///
/// A push returns only text that no later id can change, and never half a character: with a
/// byte-level vocabulary at most 3 bytes wait; with byte fallback a run of byte tokens waits for
/// its end, because one bad byte turns the whole run into U+FFFD. Not for use from several threads.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  /// Takes the next id. @return the text that is now complete, often empty.
  [[nodiscard]] std::string push(int32_t id);

  /// Ends the text. @return what was still waiting. Starts anew afterwards.
  [[nodiscard]] std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::unique_ptr<DecodeStream> stream_;
};

}  // namespace temper
