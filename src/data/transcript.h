#pragma once

#include <cstddef>
#include <string_view>

namespace temper::detail {

/// Whether a text is a transcript by its first words.
[[nodiscard]] bool is_transcript(std::string_view text);

/// Bytes of two transcripts' common beginning, up to and with the marker of the turn in which they
/// part.
[[nodiscard]] size_t shared_turns(std::string_view a, std::string_view b);

}  // namespace temper::detail
