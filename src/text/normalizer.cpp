#include "normalizer.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "json_parts.h"
#include "pattern.h"
#include "temper/text/unicode.h"

namespace temper {
namespace {

constexpr size_t kMaxInsertion = 32;  // bytes that Prepend and Replace may put in at one place

const std::string& insertion(const Json& json, const char* key, const std::string& where) {
  const std::string& text = string_member(json, key, where);
  TEMPER_CHECK(text.size() <= kMaxInsertion, where, ": \"", key, "\" has ", text.size(),
               " bytes; at most ", kMaxInsertion, " are accepted");
  return text;
}

std::optional<unicode::Form> form_of(std::string_view type) {
  if (type == "NFC") return unicode::Form::kNfc;
  if (type == "NFD") return unicode::Form::kNfd;
  if (type == "NFKC") return unicode::Form::kNfkc;
  if (type == "NFKD") return unicode::Form::kNfkd;
  return std::nullopt;
}

std::string strip(const std::string& text, bool left, bool right) {
  size_t begin = 0;
  size_t end = text.size();
  while (left && begin < end) {
    size_t next = begin;
    if (!unicode::is_white_space(unicode::next_code_point(text, &next))) break;
    begin = next;
  }
  while (right && begin < end) {
    const size_t start = unicode::previous_start(text, end);
    size_t next = start;
    if (!unicode::is_white_space(unicode::next_code_point(text, &next))) break;
    end = start;
  }
  return text.substr(begin, end - begin);
}

}  // namespace

Normalizer::Normalizer(const nlohmann::json& json, const std::string& where) {
  if (!json.is_null()) add(json, 0, where);
}

void Normalizer::add(const nlohmann::json& json, int depth, const std::string& where) {
  const std::string& type = string_member(json, "type", where);
  if (type == "Sequence") {
    for (const Json& part : sequence_parts(json, "normalizers", depth, where)) {
      add(part, depth + 1, where);
    }
    TEMPER_CHECK(steps_.size() <= kMaxPartItems, where, " has more than ", kMaxPartItems, " parts");
  } else if (const auto form = form_of(type)) {
    steps_.push_back([form = *form](std::string text) { return unicode::normalize(text, form); });
  } else if (type == "Prepend") {
    steps_.push_back([prefix = insertion(json, "prepend", where)](std::string text) {
      return text.empty() ? std::move(text) : prefix + text;
    });
  } else if (type == "Replace") {
    steps_.push_back([pattern = Pattern(member(json, "pattern", where), where),
                      content = insertion(json, "content", where)](std::string text) {
      return pattern.replace(text, content);
    });
  } else if (type == "Strip") {
    const bool left = bool_member(json, "strip_left", false, where);
    const bool right = bool_member(json, "strip_right", false, where);
    steps_.push_back([left, right](std::string text) { return strip(text, left, right); });
  } else if (type == "Lowercase") {
    steps_.push_back([](std::string text) { return unicode::to_lower(text); });
  } else {
    fail(where, " is of type \"", type,
         "\", which is not supported (NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Lowercase and "
         "Sequence are)");
  }
}

std::string Normalizer::operator()(std::string text) const {
  const size_t cap = std::max(kMinTextCap, text.size() * kMaxTextGrowth);
  for (const Step& step : steps_) {
    text = step(std::move(text));
    TEMPER_CHECK(text.size() <= cap, "[encode] the normalizer blew the text up to ", text.size(),
                 " bytes");
  }
  return text;
}

}  // namespace temper
