#include <sentencepiece_processor.h>

#include <algorithm>
#include <utility>

#include "added_tokens.h"
#include "temper/core/error.h"
#include "tokenizer_impl.h"

namespace temper {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;

class SentencePieceTokenizer final : public Tokenizer::Impl {
 public:
  SentencePieceTokenizer(std::string_view model, const std::string& where) {
    const auto status =
        processor_.LoadFromSerializedProto(absl::string_view(model.data(), model.size()));
    TEMPER_CHECK(status.ok(), where, "not a sentencepiece model: ", status.ToString());
    size_ = processor_.GetPieceSize();
    TEMPER_CHECK(size_ > 0, where, "the model has no pieces");
    for (int32_t id = 0; id < size_; ++id) {
      if (processor_.IsControl(id)) (void)control_.add(processor_.IdToPiece(id), id);
      if (anchor_ < 0 && is_normal(id)) {
        anchor_text_ = decode({id});
        if (!anchor_text_.empty() && anchor_text_ == processor_.IdToPiece(id)) anchor_ = id;
      }
    }
    if (anchor_ < 0) anchor_text_.clear();
  }

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<int32_t> ids;
    if (options.add_special_tokens && processor_.bos_id() >= 0) ids.push_back(processor_.bos_id());
    size_t done = 0;
    while (options.allow_special) {
      const StringFinder::Found found = control_.find(text, done);
      if (found.value < 0) break;
      append(text.substr(done, found.begin - done), &ids);
      ids.push_back(found.value);
      done = found.end;
    }
    append(text.substr(done), &ids);
    return ids;
  }

  std::unique_ptr<DecodeStream> decode_stream(bool skip_special) const override;

  int64_t vocab_size() const override { return size_; }

  std::optional<int32_t> token_to_id(std::string_view token) const override {
    const int32_t id = processor_.PieceToId(absl::string_view(token.data(), token.size()));
    // Unknown pieces give the id of the unknown piece.
    if (id < 0 || id >= size_ || processor_.IdToPiece(id) != token) return std::nullopt;
    return id;
  }

  std::optional<std::string> id_to_token(int32_t id) const override {
    if (!has(id)) return std::nullopt;
    return processor_.IdToPiece(id);
  }

  bool is_special(int32_t id) const override { return has(id) && processor_.IsControl(id); }

  [[nodiscard]] bool has(int32_t id) const { return id >= 0 && id < size_; }
  [[nodiscard]] bool is_byte(int32_t id) const { return processor_.IsByte(id); }

  /// A piece that stands for its own spelling, or -1 if there is none.
  [[nodiscard]] int32_t anchor() const { return anchor_; }
  [[nodiscard]] const std::string& anchor_text() const { return anchor_text_; }

  [[nodiscard]] std::string decode(const std::vector<int>& ids) const {
    std::string text;
    const auto status = processor_.Decode(ids, &text);
    TEMPER_CHECK(status.ok(), "[decode] sentencepiece failed: ", status.ToString());
    return text;
  }

 private:
  [[nodiscard]] bool is_normal(int32_t id) const {
    return !processor_.IsControl(id) && !processor_.IsByte(id) && !processor_.IsUnknown(id) &&
           !processor_.IsUnused(id);
  }

  void append(std::string_view text, std::vector<int32_t>* ids) const {
    if (text.empty()) return;
    std::vector<int> part;
    const auto status = processor_.Encode(absl::string_view(text.data(), text.size()), &part);
    TEMPER_CHECK(status.ok(), "[encode] sentencepiece failed: ", status.ToString());
    ids->insert(ids->end(), part.begin(), part.end());
  }

  sentencepiece::SentencePieceProcessor processor_;
  StringFinder control_;
  int32_t size_ = 0;
  int32_t anchor_ = -1;
  std::string anchor_text_;
};

// The library decodes whole sequences only. A piece's text depends on what is before it in two
// ways: leading space is dropped while nothing has been written, and bytes join. So byte pieces
// wait for the end of their run, and once something has been written, ids are decoded behind an
// anchor: a piece whose known text is then cut off.
class SentencePieceDecodeStream final : public DecodeStream {
 public:
  SentencePieceDecodeStream(const SentencePieceTokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  void push(int32_t id, std::string* out) override {
    if (!tokenizer_.has(id)) return;
    if (tokenizer_.is_special(id)) {
      // The library writes nothing for control pieces; their text is shown here when asked for.
      if (skip_special_) return;
      flush(out);
      *out += *tokenizer_.id_to_token(id);
      return;
    }
    waiting_.push_back(id);
    if (!tokenizer_.is_byte(id)) flush(out);
  }

  void finish(std::string* out) override { flush(out); }

 private:
  void flush(std::string* out) {
    if (waiting_.empty()) return;
    std::string text;
    if (wrote_ && tokenizer_.anchor() >= 0) {
      waiting_.insert(waiting_.begin(), tokenizer_.anchor());
      text = tokenizer_.decode(waiting_).substr(tokenizer_.anchor_text().size());
    } else {
      text = tokenizer_.decode(waiting_);
      if (text.empty()) return;  // leading space, which may matter to what follows
    }
    wrote_ = true;
    waiting_.clear();
    *out += text;
  }

  const SentencePieceTokenizer& tokenizer_;
  bool skip_special_;
  bool wrote_ = false;
  std::vector<int> waiting_;
};

std::unique_ptr<DecodeStream> SentencePieceTokenizer::decode_stream(bool skip_special) const {
  return std::make_unique<SentencePieceDecodeStream>(*this, skip_special);
}

}  // namespace

std::shared_ptr<const Tokenizer::Impl> make_sentencepiece_tokenizer(std::string_view model,
                                                                    std::string_view source) {
  const std::string where = concat("[tokenizer.model] ", source, ": ");
  TEMPER_CHECK(model.size() <= kMaxFileBytes, where, model.size(), " bytes; at most ",
               kMaxFileBytes, " are accepted");
  return std::make_shared<SentencePieceTokenizer>(model, where);
}

}  // namespace temper
