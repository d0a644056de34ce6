#include "regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "temper/core/error.h"
#include "temper/text/unicode.h"

namespace temper {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr size_t kJitStackStart = 32 << 10;
constexpr size_t kJitStackMax = 16 << 20;
constexpr uint32_t kDepthLimit = 10'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

// What a thread needs to run matches; compiled patterns themselves are shared.
struct Scratch {
  Scratch()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)) {
    TEMPER_CHECK(data != nullptr && context != nullptr, "[regex] out of memory");
    pcre2_set_depth_limit(context, kDepthLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

}  // namespace

struct Regex::Code {
  explicit Code(pcre2_code* c) : code(c) {}
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  pcre2_code* code;
};

Regex::Regex(std::string_view pattern, const std::string& where) {
  TEMPER_CHECK(pattern.size() <= kMaxPatternBytes, where, ": a pattern of ", pattern.size(),
               " bytes; at most ", kMaxPatternBytes, " are accepted");
  TEMPER_CHECK(unicode::is_valid_utf8(pattern), where, ": the pattern is not valid UTF-8");
  const std::string rewritten = oniguruma_to_pcre2(pattern, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Oniguruma's ^ and $ always match at lines; its dot never takes a newline, as PCRE2's default.
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(rewritten.data()), rewritten.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  TEMPER_CHECK(code != nullptr, where, ": the pattern \"", pattern,
               "\" does not compile: ", error_text(error));
  code_ = std::make_shared<const Code>(code);
  // Without a JIT (some processors) matching is slower, not different.
  (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

std::optional<MatchSpan> Regex::find(std::string_view text, size_t start) const {
  Scratch& scratch = thread_scratch();
  // A long run of spaces is walked once per alternative; beyond a multiple of that the pattern is
  // running wild.
  const uint64_t limit = 10'000'000 + 64 * static_cast<uint64_t>(text.size());
  pcre2_set_match_limit(scratch.context,
                        static_cast<uint32_t>(std::min<uint64_t>(limit, UINT32_MAX)));
  const int n = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                            start, PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
  if (n == PCRE2_ERROR_NOMATCH) return std::nullopt;
  TEMPER_CHECK(n >= 0, "[encode] the pre-tokenizer's expression gave up on a text of ", text.size(),
               " bytes: ", error_text(n));
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data);
  // \K in a lookahead can put the start behind the end.
  TEMPER_CHECK(start <= offsets[0] && offsets[0] <= offsets[1],
               "[encode] the pre-tokenizer's expression gave a match that runs backwards");
  return MatchSpan{offsets[0], offsets[1]};
}

std::optional<MatchSpan> MatchIterator::next() {
  while (position_ <= text_.size()) {
    const std::optional<MatchSpan> match = regex_.find(text_, position_);
    if (!match) {
      position_ = text_.size() + 1;
      return std::nullopt;
    }
    if (match->begin == match->end && last_end_ == match->end) {
      if (position_ >= text_.size()) break;
      (void)unicode::next_code_point(text_, &position_);
      continue;
    }
    position_ = match->end;
    last_end_ = match->end;
    return match;
  }
  position_ = text_.size() + 1;
  return std::nullopt;
}

}  // namespace temper
