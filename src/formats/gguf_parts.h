#pragma once

#include <memory>
#include <string>
#include <vector>

#include "temper/formats/gguf.h"

namespace temper::detail {

/// The special tokens' ids that a GGUF file's keys name, checked against the vocabulary.
struct GgufSpecialIds {
  std::optional<int32_t> bos, eos, pad, unk;
  std::vector<int32_t> ends;  ///< eos first, then end-of-turn and end-of-message where they differ.
};
[[nodiscard]] GgufSpecialIds gguf_special_ids(const GgufFile& file);

/// Config from `{arch}.*` keys and from which tensors there are.
[[nodiscard]] ModelConfig gguf_config(const GgufFile& file);

/// The tensors under their Hugging Face names; keeps the file's mapping alive.
[[nodiscard]] std::shared_ptr<const WeightSource> gguf_weights(const GgufFile& file,
                                                               const ModelConfig& config);

/// tokenizer.json and its companions, composed from `tokenizer.ggml.*`.
[[nodiscard]] TokenizerFiles gguf_tokenizer(const GgufFile& file, const ModelConfig& config);

}  // namespace temper::detail
