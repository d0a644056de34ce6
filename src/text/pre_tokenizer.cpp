#include "pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "json_parts.h"
#include "pattern.h"
#include "temper/text/unicode.h"

namespace temper {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior behavior_of(const std::string& name, const std::string& where) {
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  fail(where, ": the split behavior \"", name, "\" is not known");
}

// Joins stretches in place as the behavior says; what remains are the pieces.
void apply_behavior(Behavior behavior, std::vector<Stretch>* parts) {
  std::vector<Stretch> out;
  out.reserve(parts->size());
  bool previous = false;
  switch (behavior) {
    case Behavior::kIsolated: return;
    case Behavior::kRemoved:
      for (const Stretch& part : *parts) {
        if (!part.is_match) out.push_back(part);
      }
      break;
    case Behavior::kMergedWithPrevious:
    case Behavior::kContiguous:
      for (const Stretch& part : *parts) {
        const bool join = behavior == Behavior::kContiguous ? part.is_match == previous
                                                            : part.is_match && !previous;
        if (join && !out.empty()) {
          out.back().end = part.end;
        } else {
          out.push_back(part);
        }
        previous = part.is_match;
      }
      break;
    case Behavior::kMergedWithNext:
      for (auto part = parts->rbegin(); part != parts->rend(); ++part) {
        if (part->is_match && !previous && !out.empty()) {
          out.back().begin = part->begin;
        } else {
          out.push_back(*part);
        }
        previous = part->is_match;
      }
      std::reverse(out.begin(), out.end());
      break;
  }
  *parts = std::move(out);
}

// Cuts every piece by `find`, which covers a text with stretches.
template <class Find>
void split(Pieces* pieces, const Find& find, Behavior behavior, bool invert = false) {
  std::vector<MatchSpan> spans;
  spans.reserve(pieces->spans.size());
  std::vector<Stretch> parts;
  for (const MatchSpan& span : pieces->spans) {
    find(pieces->piece(span), &parts);
    if (invert) {
      for (Stretch& part : parts) part.is_match = !part.is_match;
    }
    apply_behavior(behavior, &parts);
    for (const Stretch& part : parts) {
      if (part.begin != part.end) spans.push_back({span.begin + part.begin, span.begin + part.end});
    }
  }
  pieces->spans = std::move(spans);
}

// Each matching character by itself, and what lies between.
template <class Predicate>
void character_stretches(std::string_view text, const Predicate& is_match,
                         std::vector<Stretch>* out) {
  out->clear();
  size_t end = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    if (!is_match(unicode::next_code_point(text, &i))) continue;
    if (begin != end) out->push_back({end, begin, false});
    out->push_back({begin, i, true});
    end = i;
  }
  if (end != text.size()) out->push_back({end, text.size(), false});
}

// Rewrites every piece: `rewrite(piece, is_first, out)` appends the new text.
template <class Rewrite>
void rewrite_pieces(Pieces* pieces, const Rewrite& rewrite) {
  std::string text;
  text.reserve(pieces->text.size() + pieces->text.size() / 2 + 8);
  for (MatchSpan& span : pieces->spans) {
    const size_t begin = text.size();
    rewrite(pieces->piece(span), span.begin == 0, &text);
    span = {begin, text.size()};
  }
  pieces->text = std::move(text);
}

std::function<void(Pieces*)> byte_level_step(const Json& json, const std::string& where) {
  const bool add_prefix_space = bool_member(json, "add_prefix_space", true, where);
  std::optional<Pattern> pattern;
  if (bool_member(json, "use_regex", true, where)) pattern.emplace(Regex(kGpt2Pattern, where));
  return [add_prefix_space, pattern](Pieces* pieces) {
    if (add_prefix_space) {
      rewrite_pieces(pieces, [](std::string_view piece, bool, std::string* out) {
        if (!piece.starts_with(' ')) out->push_back(' ');
        *out += piece;
      });
    }
    if (pattern) {
      split(
          pieces, [&](auto text, auto* out) { pattern->stretches(text, out); },
          Behavior::kIsolated);
    }
    const std::vector<std::string>& characters = byte_level_characters();
    rewrite_pieces(pieces, [&](std::string_view piece, bool, std::string* out) {
      for (const char c : piece) *out += characters[static_cast<uint8_t>(c)];
    });
  };
}

enum class PrependScheme { kFirst, kAlways, kNever };

PrependScheme prepend_scheme(const Json& json, const std::string& where) {
  PrependScheme scheme = PrependScheme::kAlways;
  if (json.contains("prepend_scheme")) {
    const std::string& name = string_member(json, "prepend_scheme", where);
    TEMPER_CHECK(name == "first" || name == "always" || name == "never", where,
                 ": the prepend_scheme \"", name, "\" is not known");
    scheme = name == "first"    ? PrependScheme::kFirst
             : name == "always" ? PrependScheme::kAlways
                                : PrependScheme::kNever;
  }
  if (!bool_member(json, "add_prefix_space", true, where)) {
    TEMPER_CHECK(scheme == PrependScheme::kNever || !json.contains("prepend_scheme"), where,
                 ": add_prefix_space contradicts prepend_scheme");
    scheme = PrependScheme::kNever;
  }
  return scheme;
}

std::function<void(Pieces*)> metaspace_step(const Json& json, const std::string& where) {
  const std::string& mark = string_member(json, "replacement", where);
  TEMPER_CHECK(!mark.empty() && unicode::sequence_length(mark) == mark.size(), where,
               ": \"replacement\" must be one character");
  const PrependScheme scheme = prepend_scheme(json, where);
  const bool cut = bool_member(json, "split", true, where);
  size_t at = 0;
  const char32_t mark_point = unicode::next_code_point(mark, &at);
  return [mark, mark_point, scheme, cut](Pieces* pieces) {
    const bool at_start = pieces->at_start;
    rewrite_pieces(pieces, [&](std::string_view piece, bool is_first, std::string* out) {
      const bool wanted = scheme == PrependScheme::kAlways ||
                          (scheme == PrependScheme::kFirst && at_start && is_first);
      if (wanted && !piece.starts_with(' ') && !piece.starts_with(mark)) *out += mark;
      for (const char c : piece) {
        if (c == ' ') {
          *out += mark;
        } else {
          out->push_back(c);
        }
      }
    });
    if (!cut) return;
    const auto is_mark = [&](char32_t c) { return c == mark_point; };
    split(
        pieces, [&](auto text, auto* out) { character_stretches(text, is_mark, out); },
        Behavior::kMergedWithNext);
  };
}

std::function<void(Pieces*)> split_step(const Json& json, const std::string& where) {
  const Behavior behavior = behavior_of(string_member(json, "behavior", where), where);
  const bool invert = bool_member(json, "invert", false, where);
  return
      [pattern = Pattern(member(json, "pattern", where), where), behavior, invert](Pieces* pieces) {
        split(
            pieces, [&](auto text, auto* out) { pattern.stretches(text, out); }, behavior, invert);
      };
}

}  // namespace

const std::vector<std::string>& byte_level_characters() {
  static const std::vector<std::string> characters = [] {
    std::vector<std::string> out(256);
    char32_t next = 256;
    for (char32_t b = 0; b < 256; ++b) {
      const bool itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      unicode::append_code_point(&out[b], itself ? b : next++);
    }
    return out;
  }();
  return characters;
}

int byte_of_character(char32_t c) {
  static const std::array<int16_t, 324> bytes = [] {
    std::array<int16_t, 324> out{};
    out.fill(-1);
    for (size_t b = 0; b < 256; ++b) {
      size_t at = 0;
      out[unicode::next_code_point(byte_level_characters()[b], &at)] = static_cast<int16_t>(b);
    }
    return out;
  }();
  return c < bytes.size() ? bytes[c] : -1;
}

PreTokenizer::PreTokenizer(const nlohmann::json& json, const std::string& where) {
  if (!json.is_null()) add(json, 0, where);
}

void PreTokenizer::add(const nlohmann::json& json, int depth, const std::string& where) {
  const std::string& type = string_member(json, "type", where);
  if (type == "Sequence") {
    for (const Json& part : sequence_parts(json, "pretokenizers", depth, where)) {
      add(part, depth + 1, where);
    }
    TEMPER_CHECK(steps_.size() <= kMaxPartItems, where, " has more than ", kMaxPartItems, " parts");
  } else if (type == "ByteLevel") {
    steps_.push_back(byte_level_step(json, where));
  } else if (type == "Split") {
    steps_.push_back(split_step(json, where));
  } else if (type == "Digits") {
    const Behavior behavior = bool_member(json, "individual_digits", false, where)
                                  ? Behavior::kIsolated
                                  : Behavior::kContiguous;
    steps_.push_back([behavior](Pieces* pieces) {
      split(
          pieces, [](auto text, auto* out) { character_stretches(text, unicode::is_numeric, out); },
          behavior);
    });
  } else if (type == "Metaspace") {
    steps_.push_back(metaspace_step(json, where));
  } else {
    fail(where, " is of type \"", type,
         "\", which is not supported (ByteLevel, Split, Digits, Metaspace and Sequence are)");
  }
}

Pieces PreTokenizer::operator()(std::string text, bool at_start) const {
  Pieces pieces{std::move(text), {}, at_start};
  if (pieces.text.empty()) return pieces;
  pieces.spans.push_back({0, pieces.text.size()});
  const size_t cap = std::max(kMinTextCap, pieces.text.size() * kMaxTextGrowth);
  for (const Step& step : steps_) {
    step(&pieces);
    TEMPER_CHECK(pieces.text.size() <= cap, "[encode] the pre-tokenizer blew the text up to ",
                 pieces.text.size(), " bytes");
  }
  return pieces;
}

}  // namespace temper
