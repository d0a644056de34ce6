#include <algorithm>
#include <limits>

#include "jinja_runtime.h"
#include "jinja_text.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

constexpr size_t kNowhere = std::string_view::npos;

using Method = Value (*)(Runtime&, const std::string& self, const CallArgs& args);

Value list_of_pieces(const std::vector<std::string_view>& pieces, Kind kind = Kind::kList) {
  check_item_count(pieces.size());
  Values items;
  items.reserve(pieces.size());
  for (const std::string_view piece : pieces) items.emplace_back(piece);
  return Value::sequence(kind, std::move(items));
}

void add_piece(std::vector<std::string_view>& pieces, std::string_view piece) {
  check_item_count(pieces.size() + 1);
  pieces.push_back(piece);
}

/// Words between runs of white space, at most `limit` cuts.
std::vector<std::string_view> split_words(std::string_view text, size_t limit) {
  std::vector<std::string_view> words;
  size_t at = skip_space(text, 0);
  while (at < text.size()) {
    if (words.size() == limit) {
      add_piece(words, text.substr(at));
      break;
    }
    size_t end = at;
    while (end < text.size() && !is_space(decode(text, end).value)) end += decode(text, end).size;
    add_piece(words, text.substr(at, end - at));
    at = skip_space(text, end);
  }
  return words;
}

std::vector<std::string_view> rsplit_words(std::string_view text, size_t limit) {
  std::vector<std::string_view> words = split_words(text, kNowhere);
  if (words.size() <= limit) return words;
  const std::string_view last_kept = words[words.size() - limit - 1];
  const size_t length = size_t(last_kept.data() + last_kept.size() - text.data());
  std::vector<std::string_view> out = {text.substr(0, length)};
  out.insert(out.end(), words.end() - std::ptrdiff_t(limit), words.end());
  return out;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator,
                                       size_t limit) {
  std::vector<std::string_view> pieces;
  size_t at = 0;
  while (pieces.size() < limit) {
    const size_t hit = find_text(text, separator, at);
    if (hit == kNowhere) break;
    add_piece(pieces, text.substr(at, hit - at));
    at = hit + separator.size();
  }
  add_piece(pieces, text.substr(at));
  return pieces;
}

/// As split_at, cutting from the end: on the reversed text, so that overlaps count from there.
std::vector<std::string_view> rsplit_at(std::string_view text, std::string_view separator,
                                        size_t limit) {
  const std::string backwards(text.rbegin(), text.rend());
  const std::string reversed(separator.rbegin(), separator.rend());
  std::vector<std::string_view> pieces = split_at(backwards, reversed, limit);
  for (std::string_view& piece : pieces) {
    const size_t end = text.size() - size_t(piece.data() - backwards.data());
    piece = text.substr(end - piece.size(), piece.size());
  }
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

template <bool kRight>
Value split(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("split", args, {"sep", "maxsplit"});
  const int64_t max = bound.integer(1, -1);
  const size_t limit = max < 0 ? kNowhere : size_t(max);
  if (!bound.given(0)) {
    return list_of_pieces(kRight ? rsplit_words(self, limit) : split_words(self, limit));
  }
  const std::string_view separator = bound.text(0, "");
  TEMPER_CHECK(!separator.empty(), "split: empty separator");
  return list_of_pieces(kRight ? rsplit_at(self, separator, limit)
                               : split_at(self, separator, limit));
}

template <bool kLeft, bool kRight>
Value strip(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("strip", args, {"chars"});
  const std::string_view chars = bound.given(0) ? bound.text(0, "") : "";
  return Value(strip_text(self, bound.given(0) ? &chars : nullptr, kLeft, kRight));
}

struct Window {
  std::string_view text = {};
  size_t start = 0;  ///< Bytes before it.
  bool valid = true;
};

/// The part of the text between the code points that arguments 1 and 2 name.
Window window(const std::string& self, const Bound& bound) {
  if (!bound.given(1) && !bound.given(2)) return {.text = self};
  const std::vector<uint32_t> offsets = code_point_offsets(self);
  const int64_t n = int64_t(offsets.size()) - 1;
  const int64_t raw_start = bound.given(1) ? bound.integer(1, 0) : 0;
  const int64_t raw_stop = bound.given(2) ? bound.integer(2, n) : n;
  const auto from_end = [&](int64_t i) { return i < 0 ? std::max<int64_t>(i + n, 0) : i; };
  const int64_t start = from_end(raw_start), stop = std::min(from_end(raw_stop), n);
  if (start > stop) return {.valid = false};
  const size_t from = offsets[size_t(start)];
  return {.text = std::string_view(self).substr(from, offsets[size_t(stop)] - from), .start = from};
}

template <bool kEnd>
Value starts_or_ends(Runtime& runtime, const std::string& self, const CallArgs& args) {
  const Bound bound(kEnd ? "endswith" : "startswith", args, {"prefix", "start", "end"}, 1);
  const Window part = window(self, bound);
  const auto matches = [&](std::string_view affix) {
    return part.valid && (kEnd ? part.text.ends_with(affix) : part.text.starts_with(affix));
  };
  if (!bound[0]->is(Kind::kTuple)) return Value(matches(bound.text(0, "")));
  for (const Value& affix : bound[0]->items()) {
    runtime.budget.charge();
    TEMPER_CHECK(affix.is_string(), "startswith/endswith: expected a string or a tuple of strings");
    if (matches(affix.text())) return Value(true);
  }
  return Value(false);
}

template <bool kRight, bool kMustExist>
Value find(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("find", args, {"sub", "start", "end"}, 1);
  const std::string_view what = bound.text(0, "");
  const Window part = window(self, bound);
  size_t at = kNowhere;
  if (part.valid) at = kRight ? rfind_text(part.text, what) : find_text(part.text, what);
  TEMPER_CHECK(at != kNowhere || !kMustExist, "substring not found");
  if (at == kNowhere) return Value(int64_t{-1});
  return Value(int64_t(text_length(std::string_view(self).substr(0, part.start + at))));
}

Value count(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("count", args, {"sub", "start", "end"}, 1);
  const std::string_view what = bound.text(0, "");
  const Window part = window(self, bound);
  if (!part.valid) return Value(int64_t{0});
  if (what.empty()) return Value(int64_t(text_length(part.text)) + 1);
  int64_t n = 0;
  for (size_t at = 0; (at = find_text(part.text, what, at)) != kNowhere; at += what.size()) ++n;
  return Value(n);
}

Value replace(Runtime& runtime, const std::string& self, const CallArgs& args) {
  const Bound bound("replace", args, {"old", "new", "count"}, 2);
  (void)bound.text(0, "");  // the filter would convert other types, the method does not
  (void)bound.text(1, "");
  return runtime.call_filter("replace", Value(self), args);
}

Value join(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("join", args, {"iterable"}, 1);
  std::string out;
  bool first = true;
  for (const Value& item : iterate(*bound[0])) {
    require_defined(item);
    TEMPER_CHECK(item.is_string(), "join: expected strings, got ", type_name(item));
    check_text_size(out.size() + item.text().size() + self.size());
    if (!first) out += self;
    first = false;
    out += item.text();
  }
  return Value(std::move(out));
}

template <std::string (*kConvert)(std::string_view)>
Value convert(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("case conversion", args, {});
  return Value(kConvert(self));
}

std::string swap_case(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text, i);
    const std::string_view letter = text.substr(i, c.size);
    out += is_upper(c.value)   ? lower_text(letter)
           : is_lower(c.value) ? upper_text(letter)
                               : std::string(letter);
    i += c.size;
  }
  return out;
}

/// Every code point satisfies the test.
template <bool (*kTest)(char32_t), bool kIfEmpty = false>
Value all_of(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("character test", args, {});
  bool all = kIfEmpty || !self.empty();
  for (size_t i = 0; all && i < self.size(); i += decode(self, i).size) {
    all = kTest(decode(self, i).value);
  }
  return Value(all);
}

bool is_alnum(char32_t c) { return is_alpha(c) || is_digit(c); }
bool is_ascii(char32_t c) { return c < 128; }

/// Some letter has the case and none has the other.
template <bool kUpper>
Value has_case(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("case test", args, {});
  bool seen = false;
  for (size_t i = 0; i < self.size();) {
    const CodePoint c = decode(self, i);
    if (kUpper ? is_lower(c.value) : is_upper(c.value)) return Value(false);
    seen |= kUpper ? is_upper(c.value) : is_lower(c.value);
    i += c.size;
  }
  return Value(seen);
}

Value split_into_lines(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("splitlines", args, {"keepends"});
  return list_of_pieces(split_lines(self, bound.flag(0, false)));
}

template <bool kRight>
Value partition(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("partition", args, {"sep"}, 1);
  const std::string_view separator = bound.text(0, ""), text = self;
  TEMPER_CHECK(!separator.empty(), "partition: empty separator");
  const size_t at = kRight ? rfind_text(text, separator) : find_text(text, separator);
  if (at == kNowhere) {
    return list_of_pieces(kRight ? std::vector<std::string_view>{"", "", text}
                                 : std::vector<std::string_view>{text, "", ""},
                          Kind::kTuple);
  }
  return list_of_pieces({text.substr(0, at), separator, text.substr(at + separator.size())},
                        Kind::kTuple);
}

template <bool kSuffix>
Value remove_affix(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("removeprefix", args, {"affix"}, 1);
  const std::string_view affix = bound.text(0, ""), text = self;
  if (kSuffix ? !text.ends_with(affix) : !text.starts_with(affix)) return Value(text);
  return Value(kSuffix ? text.substr(0, text.size() - affix.size()) : text.substr(affix.size()));
}

std::string fill(int64_t n, std::string_view with) {
  std::string out;
  for (int64_t i = 0; i < n; ++i) out += with;
  return out;
}

/// ljust (-1), center (0), rjust (1).
template <int kSide>
Value justify(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("ljust/center/rjust", args, {"width", "fillchar"}, 1);
  const int64_t width = bound.integer(0, 0), n = int64_t(text_length(self));
  const std::string_view with = bound.text(1, " ");
  TEMPER_CHECK(text_length(with) == 1, "the fill character must be exactly one character long");
  if (width <= n) return Value(self);
  check_text_size(size_t(width));
  check_text_size(self.size() + size_t(width - n) * with.size());
  const int64_t space = width - n;
  const int64_t left = kSide < 0 ? 0 : kSide > 0 ? space : space / 2 + (space & width & 1);
  return Value(fill(left, with) + self + fill(space - left, with));
}

Value zfill(Runtime&, const std::string& self, const CallArgs& args) {
  const Bound bound("zfill", args, {"width"}, 1);
  const int64_t space = bound.integer(0, 0) - int64_t(text_length(self));
  if (space <= 0) return Value(self);
  check_text_size(size_t(space));
  const bool sign = self.starts_with('-') || self.starts_with('+');
  return Value(self.substr(0, sign) + std::string(size_t(space), '0') + self.substr(sign));
}

Value format(Runtime& runtime, const std::string& self, const CallArgs& args) {
  return Value(format_braces(self, args, runtime.budget));
}

struct Entry {
  std::string_view name;
  Method method;
};

constexpr Entry kMethods[] = {
    {"strip", strip<true, true>},
    {"lstrip", strip<true, false>},
    {"rstrip", strip<false, true>},
    {"split", split<false>},
    {"rsplit", split<true>},
    {"splitlines", split_into_lines},
    {"startswith", starts_or_ends<false>},
    {"endswith", starts_or_ends<true>},
    {"replace", replace},
    {"find", find<false, false>},
    {"rfind", find<true, false>},
    {"index", find<false, true>},
    {"rindex", find<true, true>},
    {"count", count},
    {"join", join},
    {"upper", convert<upper_text>},
    {"lower", convert<lower_text>},
    {"casefold", convert<lower_text>},
    {"title", convert<title_text>},
    {"capitalize", convert<capitalize_text>},
    {"swapcase", convert<swap_case>},
    {"isdigit", all_of<is_digit>},
    {"isdecimal", all_of<is_digit>},
    {"isnumeric", all_of<is_digit>},
    {"isalpha", all_of<is_alpha>},
    {"isalnum", all_of<is_alnum>},
    {"isspace", all_of<is_space>},
    {"isascii", all_of<is_ascii, true>},
    {"isupper", has_case<true>},
    {"islower", has_case<false>},
    {"partition", partition<false>},
    {"rpartition", partition<true>},
    {"removeprefix", remove_affix<false>},
    {"removesuffix", remove_affix<true>},
    {"ljust", justify<-1>},
    {"center", justify<0>},
    {"rjust", justify<1>},
    {"zfill", zfill},
    {"format", format},
};

/// Methods of str that exist in Python: calling one says so instead of "undefined".
constexpr std::string_view kUnsupported[] = {"encode",       "expandtabs",  "format_map",
                                             "isidentifier", "isprintable", "istitle",
                                             "maketrans",    "translate"};

}  // namespace

bool has_string_method(std::string_view name) {
  return std::any_of(std::begin(kMethods), std::end(kMethods),
                     [&](const Entry& entry) { return entry.name == name; }) ||
         std::find(std::begin(kUnsupported), std::end(kUnsupported), name) !=
             std::end(kUnsupported);
}

Value call_string_method(Runtime& runtime, const Callable& method, const CallArgs& args) {
  for (const Entry& entry : kMethods) {
    if (entry.name == method.name) return entry.method(runtime, method.self.text(), args);
  }
  fail("string method '", method.name, "' is not supported");
}

}  // namespace temper::jinja
