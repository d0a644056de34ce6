#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <utility>

#include "temper/core/error.h"
#include "temper/core/safe_regex.h"
#include "temper/reward/builtin.h"
#include "temper/reward/number.h"

namespace temper {
namespace {

constexpr float kNotScored = std::numeric_limits<float>::quiet_NaN();

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool is_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

std::string case_folded(const std::string& text) {
  utf8proc_uint8_t* folded = nullptr;
  const utf8proc_ssize_t length = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
      static_cast<utf8proc_ssize_t>(text.size()), &folded,
      static_cast<utf8proc_option_t>(UTF8PROC_CASEFOLD | UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(folded, std::free);
  if (length < 0) return text;
  return {reinterpret_cast<const char*>(folded), static_cast<size_t>(length)};
}

std::string single_spaced(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (!is_blank(c)) {
      out.push_back(c);
    } else if (!out.empty() && out.back() != ' ') {
      out.push_back(' ');
    }
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::vector<std::string> normalised_words(std::vector<std::string> words, const TextMatch& match,
                                          const char* op) {
  TEMPER_CHECK(!words.empty(), "[", op, "] at least one word is needed (reward.words)");
  for (std::string& word : words) {
    std::string normal = normalise_text(word, match);
    TEMPER_CHECK(!normal.empty(), "[", op, "] the word \"", word,
                 "\" is empty as it is compared and would match anything");
    word = std::move(normal);
  }
  return words;
}

size_t count_of(const std::string& text, const std::string& tag) {
  size_t count = 0;
  for (size_t at = text.find(tag); at != std::string::npos; at = text.find(tag, at + tag.size())) {
    ++count;
  }
  return count;
}

}  // namespace

std::string normalise_text(const std::string& text, const TextMatch& match) {
  std::string out = match.ignore_case ? case_folded(text) : text;
  if (match.ignore_punctuation) std::erase_if(out, is_punctuation);
  return match.ignore_space ? single_spaced(out) : out;
}

RewardFn exact_match(TextMatch match) {
  return per_completion([match](const Completion& c) {
    if (c.example == nullptr || c.example->answer.empty()) return kNotScored;
    return normalise_text(c.text, match) == normalise_text(c.example->answer, match) ? 1.0f : 0.0f;
  });
}

RewardFn numeric_answer(double tolerance) {
  TEMPER_CHECK(tolerance >= 0, "[numeric_answer] tolerance must not be negative, got ", tolerance);
  return per_completion([tolerance](const Completion& c) {
    const auto wanted = c.example == nullptr ? std::nullopt : answer_number(c.example->answer);
    if (!wanted) return kNotScored;
    const auto given = answer_number(c.text);
    if (!given) return 0.0f;
    return (tolerance == 0 ? given->equals(*wanted) : given->near(*wanted, tolerance)) ? 1.0f
                                                                                       : 0.0f;
  });
}

RewardFn one_of(std::vector<std::string> words, TextMatch match) {
  return per_completion(
      [words = normalised_words(std::move(words), match, "one_of"), match](const Completion& c) {
        const std::string text = normalise_text(c.text, match);
        return std::find(words.begin(), words.end(), text) != words.end() ? 1.0f : 0.0f;
      });
}

RewardFn contains(std::vector<std::string> words, TextMatch match) {
  return per_completion(
      [words = normalised_words(std::move(words), match, "contains"), match](const Completion& c) {
        const std::string text = normalise_text(c.text, match);
        return std::any_of(
                   words.begin(), words.end(),
                   [&](const std::string& word) { return text.find(word) != std::string::npos; })
                   ? 1.0f
                   : 0.0f;
      });
}

RewardFn regex_format(const std::string& pattern) {
  TEMPER_CHECK(!pattern.empty(), "[regex_format] a pattern is needed (reward.pattern)");
  // A std::function must be copyable; the compiled pattern is shared.
  return per_completion([regex = std::make_shared<const SafeRegex>(pattern)](const Completion& c) {
    return regex->search(c.text) ? 1.0f : 0.0f;
  });
}

RewardFn think_format() {
  return per_completion([](const Completion& c) {
    constexpr std::string_view kOpen = "<think>";
    const bool good = c.text.starts_with(kOpen) &&
                      c.text.find(kOpen, kOpen.size()) == std::string::npos &&
                      c.text.find("</think>", kOpen.size()) != std::string::npos;
    return good ? 1.0f : 0.0f;
  });
}

RewardFn tag_count(std::vector<std::string> tags) {
  TEMPER_CHECK(!tags.empty(), "[tag_count] at least one tag is needed (reward.tags)");
  for (const auto& tag : tags) TEMPER_CHECK(!tag.empty(), "[tag_count] a tag is empty");
  return per_completion([tags = std::move(tags)](const Completion& c) {
    const auto once = std::count_if(tags.begin(), tags.end(), [&](const std::string& tag) {
      return count_of(c.text, tag) == 1;
    });
    return static_cast<float>(static_cast<double>(once) / static_cast<double>(tags.size()));
  });
}

}  // namespace temper
