#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace temper {

/// Puts a GGUF file together byte by byte, wrong ones too.
class GgufBuilder {
 public:
  template <class T>
  static std::string raw(T value) {
    std::string bytes(sizeof value, '\0');
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
  }
  static std::string text(std::string_view s) { return raw(uint64_t{s.size()}) + std::string(s); }

  GgufBuilder& key(std::string_view name, uint32_t type, const std::string& value) {
    keys_ += text(name) + raw(type) + value;
    ++n_keys;
    return *this;
  }
  GgufBuilder& u32(std::string_view name, uint32_t value) { return key(name, 4, raw(value)); }
  GgufBuilder& f32(std::string_view name, float value) { return key(name, 6, raw(value)); }
  GgufBuilder& str(std::string_view name, std::string_view value) {
    return key(name, 8, text(value));
  }
  GgufBuilder& strings(std::string_view name, const std::vector<std::string>& values) {
    std::string items = raw(uint32_t{8}) + raw(uint64_t{values.size()});
    for (const std::string& v : values) items += text(v);
    return key(name, 9, items);
  }
  template <class T>
  GgufBuilder& numbers(std::string_view name, uint32_t type, const std::vector<T>& values) {
    std::string items = raw(type) + raw(uint64_t{values.size()});
    for (const T v : values) items += raw(v);
    return key(name, 9, items);
  }
  GgufBuilder& tensor(std::string_view name, const std::vector<int64_t>& fastest_first,
                      uint32_t type, uint64_t offset) {
    infos_ += text(name) + raw(static_cast<uint32_t>(fastest_first.size()));
    for (const int64_t d : fastest_first) infos_ += raw(d);
    infos_ += raw(type) + raw(offset);
    ++n_tensors;
    return *this;
  }
  /// F32 tensor of `value`s, appended to the data.
  GgufBuilder& filled(std::string_view name, const std::vector<int64_t>& fastest_first,
                      float value) {
    int64_t numel = 1;
    for (const int64_t d : fastest_first) numel *= d;
    data.resize((data.size() + 31) / 32 * 32);
    tensor(name, fastest_first, 0, data.size());
    for (int64_t i = 0; i < numel; ++i) data += raw(value);
    return *this;
  }

  std::string bytes() const {
    std::string out = magic + raw(version) + raw(n_tensors) + raw(n_keys) + keys_ + infos_;
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t n_tensors = 0, n_keys = 0;
  size_t alignment = 32;
  std::string data;

 private:
  std::string keys_, infos_;
};

/// Keys and tensors of a llama of one layer: hidden 8, 2 heads of 4, 1 key-value head, 4 tokens.
inline GgufBuilder small_llama() {
  GgufBuilder b;
  b.str("general.architecture", "llama")
      .u32("llama.block_count", 1)
      .u32("llama.context_length", 16);
  b.u32("llama.embedding_length", 8).u32("llama.feed_forward_length", 8);
  b.u32("llama.attention.head_count", 2).u32("llama.attention.head_count_kv", 1);
  b.str("tokenizer.ggml.model", "gpt2");
  b.strings("tokenizer.ggml.tokens", {"<e>", "a", "b", "ab"})
      .strings("tokenizer.ggml.merges", {"a b"});
  b.numbers<int32_t>("tokenizer.ggml.token_type", 5, {3, 1, 1, 1});
  b.u32("tokenizer.ggml.eos_token_id", 0);
  b.filled("token_embd.weight", {8, 4}, 1.0f).filled("output_norm.weight", {8}, 2.0f);
  return b;
}

}  // namespace temper
