#include <charconv>
#include <cmath>
#include <numbers>

#include "gguf_parts.h"
#include "model_check.h"
#include "temper/core/error.h"

namespace temper::detail {
namespace {

/// Reads the keys that begin with the architecture's name.
class ArchKeys {
 public:
  ArchKeys(const GgufFile& file, std::string arch) : file_(file), arch_(std::move(arch)) {}

  std::optional<int64_t> integer(std::string_view key, int64_t low, int64_t high) const {
    return file_.integer(arch_ + "." + std::string(key), low, high);
  }
  int64_t required(std::string_view key, int64_t high) const {
    const auto value = integer(key, 1, high);
    TEMPER_CHECK(value.has_value(), "[gguf] ", file_.source(), ": ", arch_, ".", key,
                 " is missing");
    return *value;
  }
  std::optional<double> number(std::string_view key, double low, double high) const {
    const std::string name = arch_ + "." + std::string(key);
    const double* value = file_.find<double>(name);
    if (value == nullptr) return std::nullopt;
    TEMPER_CHECK(std::isfinite(*value) && *value >= low && *value <= high, "[gguf] ",
                 file_.source(), ": ", name, " must be in [", low, ", ", high, "], got ", *value);
    return shortest(*value);
  }
  std::string_view text(std::string_view key) const {
    const auto* value = file_.find<std::string_view>(arch_ + "." + std::string(key));
    return value != nullptr ? *value : std::string_view{};
  }

 private:
  /// The file holds 32-bit floats: 1e-5 comes as 9.99999974e-06. The shortest decimal that gives
  /// the same float is what the config said before it was converted.
  static double shortest(double value) {
    char digits[32];
    const auto end = std::to_chars(digits, digits + sizeof digits, static_cast<float>(value)).ptr;
    double result = value;
    std::from_chars(digits, end, result);
    return result;
  }

  const GgufFile& file_;
  std::string arch_;
};

const GgufTensor* find_tensor(const GgufFile& file, std::string_view name) {
  const auto at = file.tensors().find(name);
  return at == file.tensors().end() ? nullptr : &at->second;
}

/// The factor by which Llama 3's rule divides a rope frequency; see `RopeScaling`.
double llama3_divisor(const RopeScaling& s, double inv_freq) {
  const double wavelength = 2 * std::numbers::pi / inv_freq;
  const auto length = static_cast<double>(s.original_max_positions);
  if (wavelength < length / s.high_freq_factor) return 1;
  if (wavelength > length / s.low_freq_factor) return s.factor;
  const double smooth =
      (length / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return 1 / ((1 - smooth) / s.factor + smooth);
}

/// GGUF keeps Llama 3's scaling as its result, one divisor a frequency. All released models share
/// three of the four parameters and the largest divisor is the fourth: they are taken for the
/// parameters if, and only if, they give the divisors that the file holds.
std::optional<RopeScaling> scaling_from_factors(const GgufFile& file, const ModelConfig& c) {
  const GgufTensor* tensor = find_tensor(file, "rope_freqs.weight");
  if (tensor == nullptr) return std::nullopt;
  const auto half = static_cast<size_t>(c.head_dim / 2);
  TEMPER_CHECK(
      tensor->type == GgmlType::kF32 && tensor->shape == std::vector<int64_t>{c.head_dim / 2},
      "[gguf] ", file.source(), ": rope_freqs.weight must hold ", half, " F32 factors");
  std::vector<float> factors(half);
  ggml_dequantize(tensor->type, tensor->data, factors);
  RopeScaling s{"llama3", 1.0, 1.0, 4.0, 8192};
  for (const float f : factors) {
    TEMPER_CHECK(std::isfinite(f) && f >= 1, "[gguf] ", file.source(), ": rope_freqs.weight holds ",
                 f, ", expected factors of at least 1");
    s.factor = std::max(s.factor, double{f});
  }
  if (s.factor == 1) return std::nullopt;
  for (size_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim);
    const double expected = llama3_divisor(s, std::pow(c.rope_theta, exponent));
    TEMPER_CHECK(std::abs(factors[i] - expected) < 1e-4 * expected, "[gguf] ", file.source(),
                 ": rope_freqs.weight is not Llama 3's scaling (factor ", i, " is ", factors[i],
                 ", expected ", expected, "); other scalings are not supported");
  }
  return s;
}

void refuse_unsupported(const GgufFile& file, const ArchKeys& keys, const ModelConfig& c) {
  const std::string_view scaling = keys.text("rope.scaling.type");
  TEMPER_CHECK(scaling.empty() || scaling == "none", "[gguf] ", file.source(),
               ": the rope scaling \"", scaling, "\" is not supported");
  TEMPER_CHECK(keys.integer("expert_count", 0, INT32_MAX).value_or(0) == 0, "[gguf] ",
               file.source(), ": mixtures of experts are not supported");
  const auto rotated = keys.integer("rope.dimension_count", 1, kMaxHeadDim).value_or(c.head_dim);
  const auto values = keys.integer("attention.value_length", 1, kMaxHeadDim).value_or(c.head_dim);
  TEMPER_CHECK(rotated == c.head_dim && values == c.head_dim, "[gguf] ", file.source(),
               ": rope over ", rotated, " and values of ", values,
               " dimensions are not supported with a head dimension of ", c.head_dim);
}

void read_sizes(const GgufFile& file, const ArchKeys& keys, ModelConfig& c) {
  c.hidden_size = keys.required("embedding_length", kMaxHidden);
  c.intermediate_size = keys.required("feed_forward_length", kMaxIntermediate);
  c.layers = keys.required("block_count", kMaxLayers);
  c.heads = keys.required("attention.head_count", kMaxHeads);
  c.kv_heads = keys.integer("attention.head_count_kv", 1, kMaxHeads).value_or(c.heads);
  const auto head_dim = keys.integer("attention.key_length", 2, kMaxHeadDim);
  TEMPER_CHECK(head_dim || c.hidden_size % c.heads == 0, "[gguf] ", file.source(), ": ", c.heads,
               " heads do not divide the embedding length ", c.hidden_size);
  c.head_dim = head_dim.value_or(c.hidden_size / c.heads);
  c.max_positions = keys.required("context_length", kMaxPositions);
  const GgufTensor* embedding = find_tensor(file, "token_embd.weight");
  TEMPER_CHECK(embedding != nullptr && embedding->shape.size() == 2, "[gguf] ", file.source(),
               ": there is no matrix token_embd.weight");
  c.vocab_size = embedding->shape[0];
}

}  // namespace

GgufSpecialIds gguf_special_ids(const GgufFile& file) {
  const auto id = [&](std::string_view key) -> std::optional<int32_t> {
    const auto value = file.integer(concat("tokenizer.ggml.", key, "_token_id"), 0, UINT32_MAX);
    if (!value || *value > INT32_MAX) return std::nullopt;  // all ones: "none"
    return static_cast<int32_t>(*value);
  };
  GgufSpecialIds ids{id("bos"), id("eos"), id("padding"), id("unknown"), {}};
  for (const auto end : {ids.eos, id("eot"), id("eom")}) {
    if (end && std::find(ids.ends.begin(), ids.ends.end(), *end) == ids.ends.end()) {
      ids.ends.push_back(*end);
    }
  }
  return ids;
}

ModelConfig gguf_config(const GgufFile& file) {
  const auto* arch = file.find<std::string_view>("general.architecture");
  TEMPER_CHECK(arch != nullptr, "[gguf] ", file.source(), ": general.architecture is missing");
  TEMPER_CHECK(*arch == "llama" || *arch == "qwen2" || *arch == "qwen3", "[gguf] ", file.source(),
               ": the architecture \"", *arch,
               "\" is not supported; supported are llama, qwen2 and qwen3");
  const ArchKeys keys(file, std::string(*arch));
  ModelConfig c;
  c.family = *arch;
  read_sizes(file, keys, c);
  refuse_unsupported(file, keys, c);
  c.rms_eps = keys.number("attention.layer_norm_rms_epsilon", 0, 1).value_or(1e-6);
  c.rope_theta = keys.number("rope.freq_base", 1e-3, 1e12).value_or(1e4);
  if (const auto window = keys.integer("attention.sliding_window", 0, kMaxPositions);
      window.value_or(0) > 0) {
    TEMPER_CHECK(c.family == "llama", "[gguf] ", file.source(), ": a sliding window of ", *window,
                 " in ", c.family, " does not say which layers slide, which is not supported");
    c.family = "mistral";  // llama with a window; GGUF has no name of its own for it
    c.sliding_window = *window;
    c.sliding_layers.assign(static_cast<size_t>(c.layers), true);
  }
  c.rope_scaling = scaling_from_factors(file, c);
  const auto has = [&](std::string_view name) { return find_tensor(file, name) != nullptr; };
  c.qkv_bias = has("blk.0.attn_q.bias");
  c.o_bias = has("blk.0.attn_output.bias");
  c.mlp_bias = has("blk.0.ffn_gate.bias");
  c.qk_norm = c.family == "qwen3";
  c.tied = !has("output.weight");
  const GgufSpecialIds ids = gguf_special_ids(file);
  c.eos_token_ids = ids.ends;
  c.bos_token_id = ids.bos;
  c.pad_token_id = ids.pad;
  check_model_config(c, concat("[gguf] ", file.source()));
  return c;
}

}  // namespace temper::detail
