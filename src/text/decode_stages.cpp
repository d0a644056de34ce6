#include "decode_stages.h"

#include "pre_tokenizer.h"
#include "temper/text/unicode.h"

namespace temper {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The byte of a token "<0xAB>", or -1.
int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = hex_value(token[3]);
  const int low = hex_value(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

void JoinStage::push(std::string_view token) {
  if (!first_) emit(" ");
  first_ = false;
  emit(token);
}

void ByteLevelStage::push(std::string_view token) {
  const size_t before = pending_.size();
  for (size_t i = 0; i < token.size();) {
    const int byte = byte_of_character(unicode::next_code_point(token, &i));
    if (byte < 0) {
      pending_.resize(before);
      pending_ += token;
      break;
    }
    pending_.push_back(static_cast<char>(byte));
  }
  emit_complete();
}

void ByteLevelStage::emit_complete() {
  std::string text;
  size_t i = 0;
  while (i < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(i);
    const size_t n = unicode::sequence_length(rest);
    if (n == 0 && unicode::is_incomplete_prefix(rest)) break;
    text += n != 0 ? rest.substr(0, n) : kReplacement;
    i += n != 0 ? n : unicode::maximal_subpart(rest);
  }
  pending_.erase(0, i);
  if (!text.empty()) emit(text);
}

void ByteLevelStage::finish() {
  if (!pending_.empty()) emit(kReplacement);  // what waits is one maximal subpart
  pending_.clear();
}

void ByteFallbackStage::push(std::string_view token) {
  const int byte = byte_of_token(token);
  if (byte >= 0) {
    run_.push_back(static_cast<char>(byte));
    return;
  }
  finish();
  emit(token);
}

void ByteFallbackStage::finish() {
  if (run_.empty()) return;
  if (unicode::is_valid_utf8(run_)) {
    emit(run_);
  } else {
    for (size_t i = 0; i < run_.size(); ++i) emit(kReplacement);
  }
  run_.clear();
}

void StripStage::push(std::string_view token) {
  if (!config_.fused) {
    leading_ = config_.start;
    held_ = 0;
  }
  std::string text;
  for (size_t i = 0; i < token.size();) {
    const size_t begin = i;
    (void)unicode::next_code_point(token, &i);
    const std::string_view character = token.substr(begin, i - begin);
    if (character != config_.content) {
      leading_ = 0;
      for (; held_ > 0; --held_) text += config_.content;
      text += character;
    } else if (leading_ > 0) {
      --leading_;
    } else if (held_ < config_.stop) {
      ++held_;
    } else {
      text += character;
    }
  }
  emit(text);
}

void MetaspaceStage::push(std::string_view token) {
  const bool drop = first_ && !config_.keep_first;
  if (!config_.fused) first_ = false;
  std::string text;
  for (size_t i = 0; i < token.size();) {
    if (token.substr(i).starts_with(config_.mark)) {
      if (!drop) text.push_back(' ');
      i += config_.mark.size();
    } else {
      text.push_back(token[i++]);
    }
  }
  emit(text);
}

}  // namespace temper
