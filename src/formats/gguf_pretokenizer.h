#pragma once

#include <string>

#include "temper/formats/gguf.h"

namespace temper::detail {

/// The parts of a tokenizer.json that GGUF files only name: JSON texts, and two habits.
struct Pretokenizer {
  std::string normalizer = "null";
  std::string pre_tokenizer = "null";
  std::string decoder = "null";
  bool ignore_merges = false;  ///< A piece that is a token whole is not split.
  bool adds_bos = false;       ///< Where the file does not say.
};

/// By `tokenizer.ggml.pre` for byte-level models and `tokenizer.ggml.add_space_prefix` for
/// sentencepiece ones. @throws Error naming a pre-tokenizer that Temper does not know.
[[nodiscard]] Pretokenizer gguf_pretokenizer(const GgufFile& file, bool sentencepiece);

}  // namespace temper::detail
