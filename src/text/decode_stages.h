#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "decoder.h"
#include "pattern.h"

namespace temper {

/// Joins tokens with spaces.
class JoinStage final : public DecodeStage {
 public:
  void push(std::string_view token) override;

 private:
  bool first_ = true;
};

/// Waits for the end and hands on one token.
class WholeTextStage final : public DecodeStage {
 public:
  void push(std::string_view token) override { text_ += token; }
  void finish() override { emit(text_); }

 private:
  std::string text_;
};

/// Mapped characters back to bytes; all tokens together are one text. A token with a character that
/// stands for no byte (an added token) is taken as it is.
class ByteLevelStage final : public DecodeStage {
 public:
  void push(std::string_view token) override;
  void finish() override;

 private:
  void emit_complete();
  std::string pending_;  // at most 3 bytes between pushes
};

/// Runs of "<0xAB>" tokens to text, or to one U+FFFD per byte if a run is not well-formed.
class ByteFallbackStage final : public DecodeStage {
 public:
  void push(std::string_view token) override;
  void finish() override;

 private:
  std::string run_;
};

/// Removes up to `start` leading and `stop` trailing `content` characters, of every token or, if
/// `fused`, of the whole text.
class StripStage final : public DecodeStage {
 public:
  struct Config {
    std::string content;  ///< One character.
    int64_t start = 0;
    int64_t stop = 0;
    bool fused = false;
  };
  explicit StripStage(Config config) : config_(std::move(config)), leading_(config_.start) {}
  void push(std::string_view token) override;

 private:
  Config config_;
  int64_t leading_;   // how many more may be removed at the start
  int64_t held_ = 0;  // trailing ones that are removed if the text ends here
};

class ReplaceStage final : public DecodeStage {
 public:
  ReplaceStage(std::shared_ptr<const Pattern> pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void push(std::string_view token) override { emit(pattern_->replace(token, content_)); }

 private:
  std::shared_ptr<const Pattern> pattern_;
  std::string content_;
};

/// The mark becomes a space, but in the first token nothing unless `keep_first`.
class MetaspaceStage final : public DecodeStage {
 public:
  struct Config {
    std::string mark;
    bool keep_first = false;
    bool fused = false;
  };
  explicit MetaspaceStage(Config config) : config_(std::move(config)) {}
  void push(std::string_view token) override;

 private:
  Config config_;
  bool first_ = true;
};

}  // namespace temper
