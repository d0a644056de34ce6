#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace temper {

/// One step of decoding in progress: takes tokens' texts and hands texts to the next step, as soon
/// as no later token can change them.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  virtual void push(std::string_view token) = 0;
  virtual void finish() {}
  void set_next(DecodeStage* next) { next_ = next; }

 protected:
  void emit(std::string_view text) { next_->push(text); }

 private:
  DecodeStage* next_ = nullptr;
};

/// A chain of stages for one text. Move-only; the end of the chain appends to a string.
class DecodeChain {
 public:
  explicit DecodeChain(std::vector<std::unique_ptr<DecodeStage>> stages);
  void push(std::string_view token, std::string* out);
  void finish(std::string* out);

 private:
  struct Output;
  std::vector<std::unique_ptr<DecodeStage>> stages_;  // the last one is the Output
};

/// The `decoder` of a tokenizer file. Immutable.
class Decoder {
 public:
  /// No decoder in the file: tokens are joined with spaces.
  Decoder();
  /// @throws Error naming `where` and the type of a part that is not known.
  Decoder(const nlohmann::json& json, const std::string& where);

  [[nodiscard]] DecodeChain start() const;

 private:
  using Factory = std::function<std::unique_ptr<DecodeStage>()>;
  void add(const nlohmann::json& json, int depth, const std::string& where);
  void add_whole_text_stage();
  std::vector<Factory> factories_;
  bool fused_ = false;  // while reading: what arrives are parts of a single token
};

}  // namespace temper
