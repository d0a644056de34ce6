#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "gguf_parts.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"

namespace temper::detail {
namespace {

/// Names inside a block, and whether rows are stored in the order of interleaved rope.
enum class Rows { kPlain, kQuery, kKey };
struct Part {
  std::string_view gguf, hf;
  Rows rows = Rows::kPlain;
};
constexpr std::array<Part, 11> kBlockParts{{
    {"attn_norm", "input_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj", Rows::kQuery},
    {"attn_k", "self_attn.k_proj", Rows::kKey},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
}};
constexpr std::array<Part, 3> kTopParts{{
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
}};

/// A tensor and, for permuted rows, the head dimension (0: rows as they stand).
struct Entry {
  GgufTensor tensor;
  int64_t head_dim = 0;
};

/// "blk.12.attn_q.weight" to {12, "attn_q", ".weight"}; a top-level name has layer -1.
struct SplitName {
  int64_t layer = -1;
  std::string_view part, suffix;
};
SplitName split_name(std::string_view name) {
  SplitName result;
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {-1, name, {}};
  result.suffix = name.substr(dot);
  std::string_view rest = name.substr(0, dot);
  if (rest.starts_with("blk.")) {
    rest.remove_prefix(4);
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), result.layer);
    if (error != std::errc() || end == rest.data() + rest.size() || *end != '.' ||
        result.layer < 0) {
      return {-1, name, {}};
    }
    rest.remove_prefix(static_cast<size_t>(end - rest.data()) + 1);
  }
  result.part = rest;
  return result;
}

class GgufWeights : public WeightSource {
 public:
  GgufWeights(const GgufFile& file, const ModelConfig& config)
      : source_(file.source()), owner_(file.owner()) {
    const bool permuted = config.family == "llama" || config.family == "mistral";
    for (const auto& [name, tensor] : file.tensors()) {
      if (name == "rope_freqs.weight") continue;  // part of the config
      add(name, tensor, config, permuted);
    }
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> result;
    for (const auto& [name, entry] : entries_) result.push_back(name);
    return result;
  }
  bool has(std::string_view name) const override { return entries_.contains(name); }
  std::vector<int64_t> shape(std::string_view name) const override { return at(name).tensor.shape; }

  void read_float(std::string_view name, std::span<float> out) const override {
    const Entry& entry = at(name);
    const GgufTensor& tensor = entry.tensor;
    int64_t numel = 1;
    for (const int64_t size : tensor.shape) numel *= size;
    TEMPER_CHECK(out.size() == static_cast<size_t>(numel), "[gguf] ", source_, ": tensor \"", name,
                 "\" has ", numel, " elements, got a buffer of ", out.size());
    if (numel == 0) return;
    const int64_t rows = tensor.shape.empty() ? 1 : tensor.shape[0];
    const auto row_floats = static_cast<size_t>(numel / rows);
    const size_t row_bytes = tensor.data.size() / static_cast<size_t>(rows);
    parallel_for(rows, 64, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const auto from = static_cast<size_t>(stored_row(r, entry.head_dim));
        ggml_dequantize(tensor.type, tensor.data.subspan(from * row_bytes, row_bytes),
                        out.subspan(static_cast<size_t>(r) * row_floats, row_floats));
      }
    });
  }

  bool quantized(std::string_view name) const override {
    return ggml_block(at(name).tensor.type).weights > 1;
  }

  std::optional<WeightBlocks> read_blocks(std::string_view name) const override {
    const Entry& entry = at(name);
    const GgufTensor& tensor = entry.tensor;
    if (ggml_block(tensor.type).weights != 32 || tensor.shape.size() != 2) return std::nullopt;
    const int64_t rows = tensor.shape[0];
    if (rows == 0) return std::nullopt;
    const size_t row_bytes = tensor.data.size() / static_cast<size_t>(rows);
    std::vector<std::byte> ordered(tensor.data.size());
    for (int64_t r = 0; r < rows; ++r) {
      const auto from = static_cast<size_t>(stored_row(r, entry.head_dim));
      const auto row = tensor.data.subspan(from * row_bytes, row_bytes);
      std::copy(row.begin(), row.end(), ordered.begin() + static_cast<int64_t>(row_bytes) * r);
    }
    return ggml_unpack(tensor.type, ordered);
  }

 private:
  /// Where row `r` of the rotate-half layout lies in the interleaved one: within a head, row j of
  /// the first half is stored at 2j and row j of the second half at 2j + 1.
  static int64_t stored_row(int64_t r, int64_t head_dim) {
    if (head_dim == 0) return r;
    const int64_t head = r / head_dim, j = r % head_dim, half = head_dim / 2;
    return head * head_dim + (j < half ? 2 * j : 2 * (j - half) + 1);
  }

  void add(const std::string& name, const GgufTensor& tensor, const ModelConfig& c, bool permuted) {
    const SplitName split = split_name(name);
    const auto find = [&](const auto& parts) -> const Part* {
      for (const Part& p : parts) {
        if (p.gguf == split.part) return &p;
      }
      return nullptr;
    };
    const Part* part = split.layer < 0 ? find(kTopParts) : find(kBlockParts);
    TEMPER_CHECK(part != nullptr && split.layer < c.layers &&
                     (split.suffix == ".weight" || split.suffix == ".bias"),
                 "[gguf] ", source_, ": tensor \"", name, "\" has no place in a ", c.family,
                 " model of ", c.layers, " layers");
    Entry entry{tensor, 0};
    if (permuted && part->rows != Rows::kPlain) {
      const int64_t heads = part->rows == Rows::kQuery ? c.heads : c.kv_heads;
      const int64_t rows = tensor.shape.empty() ? 0 : tensor.shape[0];
      TEMPER_CHECK(rows == heads * c.head_dim, "[gguf] ", source_, ": tensor \"", name, "\" has ",
                   rows, " rows, expected ", heads, " heads of ", c.head_dim);
      entry.head_dim = c.head_dim;
    }
    // Rows are decoded one by one, so each must be whole blocks; a vector is one element a row.
    TEMPER_CHECK(tensor.shape.size() > 1 || ggml_block(tensor.type).weights == 1, "[gguf] ",
                 source_, ": the vector \"", name, "\" is quantised, which is not supported");
    std::string hf = split.layer < 0 ? "" : concat("model.layers.", split.layer, ".");
    hf.append(part->hf).append(split.suffix);
    TEMPER_CHECK(entries_.emplace(hf, std::move(entry)).second, "[gguf] ", source_,
                 ": two tensors stand for \"", hf, "\"");
  }

  const Entry& at(std::string_view name) const {
    const auto found = entries_.find(name);
    TEMPER_CHECK(found != entries_.end(), "[gguf] ", source_, " holds no tensor for \"", name,
                 "\"");
    return found->second;
  }

  std::string source_;
  std::shared_ptr<const void> owner_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace

std::shared_ptr<const WeightSource> gguf_weights(const GgufFile& file, const ModelConfig& config) {
  return std::make_shared<GgufWeights>(file, config);
}

}  // namespace temper::detail
