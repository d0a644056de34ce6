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
  std::vector<int32_t> ends;      ///< [completions] row of the last token, with Tail::kKept; or empty.
};

/// Whether a completion's last token gets a row: nothing is predicted from it, but a value of the
/// state behind it may be asked for.
enum class Tail { kLeftOut, kKept };

/// Each prompt once, its completions as children.
[[nodiscard]] CompletionBatch pack_completions(std::span<const PackedGroup> groups,
                                               Tail tail = Tail::kLeftOut);

}  // namespace temper
