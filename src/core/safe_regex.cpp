#include "temper/core/safe_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "temper/core/error.h"

namespace temper {
namespace {

constexpr uint32_t kMatchLimit = 1000000;
constexpr uint32_t kDepthLimit = 10000;
constexpr uint32_t kHeapLimitKib = 65536;

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

struct Release {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};

}  // namespace

class SafeRegex::Impl {
 public:
  explicit Impl(const std::string& pattern) : pattern_(pattern) {
    int code = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &code, &offset,
                              nullptr));
    TEMPER_CHECK(code_ != nullptr, "[regex] the pattern \"", pattern, "\" is wrong at character ",
                 offset, ": ", error_text(code));
    context_.reset(pcre2_match_context_create(nullptr));
    TEMPER_CHECK(context_ != nullptr, "[regex] out of memory");
    pcre2_set_match_limit(context_.get(), kMatchLimit);
    pcre2_set_depth_limit(context_.get(), kDepthLimit);
    pcre2_set_heap_limit(context_.get(), kHeapLimitKib);
  }

  [[nodiscard]] bool match(std::string_view text, uint32_t options) const {
    const std::unique_ptr<pcre2_match_data, Release> data(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    TEMPER_CHECK(data != nullptr, "[regex] out of memory");
    const int result = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                   text.size(), 0, options, data.get(), context_.get());
    TEMPER_CHECK(result >= 0 || result == PCRE2_ERROR_NOMATCH, "[regex] matching \"", pattern_,
                 "\" against ", text.size(), " bytes gave up: ", error_text(result));
    return result >= 0;
  }

 private:
  std::string pattern_;
  std::unique_ptr<pcre2_code, Release> code_;
  std::unique_ptr<pcre2_match_context, Release> context_;
};

SafeRegex::SafeRegex(const std::string& pattern) : impl_(std::make_unique<Impl>(pattern)) {}
SafeRegex::~SafeRegex() = default;
SafeRegex::SafeRegex(SafeRegex&&) noexcept = default;
SafeRegex& SafeRegex::operator=(SafeRegex&&) noexcept = default;

bool SafeRegex::search(std::string_view text) const { return impl_->match(text, 0); }

bool SafeRegex::matches(std::string_view text) const {
  return impl_->match(text, PCRE2_ANCHORED | PCRE2_ENDANCHORED);
}

}  // namespace temper
