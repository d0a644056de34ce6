#include <algorithm>
#include <utility>

#include "added_tokens.h"
#include "bpe.h"
#include "decoder.h"
#include "json_parts.h"
#include "normalizer.h"
#include "post_processor.h"
#include "pre_tokenizer.h"
#include "tokenizer_impl.h"

namespace temper {
namespace {

constexpr size_t kMaxFileBytes = size_t{128} << 20;

const Json& part_or_null(const Json& file, const char* key) {
  static const Json null;
  const auto it = file.find(key);
  return it == file.end() ? null : *it;
}

class JsonTokenizer final : public Tokenizer::Impl {
 public:
  JsonTokenizer(const Json& file, const std::string& where)
      : normalizer_(part_or_null(file, "normalizer"), where + "normalizer"),
        pre_tokenizer_(part_or_null(file, "pre_tokenizer"), where + "pre_tokenizer"),
        model_(member(file, "model", where + "the file"), where + "model") {
    if (const Json& added = part_or_null(file, "added_tokens"); !added.is_null()) {
      added_ = AddedTokens(added, model_.vocabulary(), normalizer_, where + "added_tokens");
    }
    vocab_size_ = model_.vocabulary().id_end();
    for (const auto& [token, id] : added_.ids()) {
      vocab_size_ = std::max<int64_t>(vocab_size_, int64_t{id} + 1);
    }
    post_processor_ =
        PostProcessor(part_or_null(file, "post_processor"), vocab_size_, where + "post_processor");
    if (const Json& decoder = part_or_null(file, "decoder"); !decoder.is_null()) {
      decoder_ = Decoder(decoder, where + "decoder");
    }
  }

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<int32_t> ids;
    for (const Section& raw : added_.cut_raw(text, options.allow_special)) {
      if (raw.id >= 0) {
        ids.push_back(raw.id);
        continue;
      }
      const std::string section =
          normalizer_(std::string(text.substr(raw.begin, raw.end - raw.begin)));
      for (const Section& part : added_.cut_normalized(section, options.allow_special)) {
        if (part.id >= 0) {
          ids.push_back(part.id);
        } else {
          encode_text(section.substr(part.begin, part.end - part.begin),
                      raw.begin == 0 && part.begin == 0, &ids);
        }
      }
    }
    return post_processor_(std::move(ids), options.add_special_tokens);
  }

  std::unique_ptr<DecodeStream> decode_stream(bool skip_special) const override;

  int64_t vocab_size() const override { return vocab_size_; }

  std::optional<int32_t> token_to_id(std::string_view token) const override {
    const auto it = added_.ids().find(token);
    if (it != added_.ids().end()) return it->second;
    return model_.vocabulary().id(token);
  }

  std::optional<std::string> id_to_token(int32_t id) const override {
    const std::string* token = token_text(id);
    return token == nullptr ? std::nullopt : std::optional<std::string>(*token);
  }

  bool is_special(int32_t id) const override {
    const std::string* token = token_text(id);
    return token != nullptr && added_.is_special_text(*token);
  }

  [[nodiscard]] const std::string* token_text(int32_t id) const {
    const std::string* added = added_.shown(id);
    return added != nullptr ? added : model_.vocabulary().token(id);
  }

 private:
  void encode_text(std::string text, bool at_start, std::vector<int32_t>* ids) const {
    const Pieces pieces = pre_tokenizer_(std::move(text), at_start);
    for (const MatchSpan& span : pieces.spans) model_.encode(pieces.piece(span), ids);
  }

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Bpe model_;
  AddedTokens added_;
  PostProcessor post_processor_;
  Decoder decoder_;
  int64_t vocab_size_ = 0;
};

class JsonDecodeStream final : public DecodeStream {
 public:
  JsonDecodeStream(const JsonTokenizer& tokenizer, bool skip_special, DecodeChain chain)
      : tokenizer_(tokenizer), skip_special_(skip_special), chain_(std::move(chain)) {}

  void push(int32_t id, std::string* out) override {
    const std::string* token = tokenizer_.token_text(id);
    if (token == nullptr || (skip_special_ && tokenizer_.is_special(id))) return;
    chain_.push(*token, out);
  }
  void finish(std::string* out) override { chain_.finish(out); }

 private:
  const JsonTokenizer& tokenizer_;
  bool skip_special_;
  DecodeChain chain_;
};

std::unique_ptr<DecodeStream> JsonTokenizer::decode_stream(bool skip_special) const {
  return std::make_unique<JsonDecodeStream>(*this, skip_special, decoder_.start());
}

}  // namespace

std::shared_ptr<const Tokenizer::Impl> make_json_tokenizer(std::string_view json,
                                                           std::string_view source) {
  const std::string where = concat("[tokenizer.json] ", source, ": ");
  TEMPER_CHECK(json.size() <= kMaxFileBytes, where, json.size(), " bytes; at most ", kMaxFileBytes,
               " are accepted");
  Json file;
  try {
    file = Json::parse(json);
  } catch (const Json::exception& e) {
    fail(where, "not valid JSON: ", e.what());
  }
  TEMPER_CHECK(file.is_object(), where, "the file must be an object, not ", file.type_name());
  return std::make_shared<JsonTokenizer>(file, where);
}

}  // namespace temper
