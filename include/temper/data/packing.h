#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "temper/nn/token_batch.h"

namespace temper {

/// Completions of one prompt that are trained on together. The spans must outlive the packing.
struct PackedGroup {
  std::span<const int32_t> prompt;
  std::vector<std::span<const int32_t>> completions;
};

/// A token tree and the rows that predict its completion tokens.
struct CompletionBatch {
  TokenBatch tokens;
  std::vector<int32_t> rows;      ///< [M] batch row whose next token is `targets[m]`.
  std::vector<int32_t> targets;   ///< [M] completion tokens, completion by completion.
  std::vector<int32_t> sequence;  ///< [M] index of the completion, counted over all groups.
};

/// Each prompt once, its completions as children. A completion's last token needs no row of its
/// own: nothing follows it.
[[nodiscard]] CompletionBatch pack_completions(std::span<const PackedGroup> groups);

}  // namespace temper
