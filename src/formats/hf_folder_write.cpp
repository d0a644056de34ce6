#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "json_util.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/formats/hf_folder.h"
#include "temper/formats/safetensors.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using OrderedJson = nlohmann::ordered_json;

constexpr size_t kMaxConfigValues = 20'000;
constexpr size_t kMaxTokenizerValues = 200'000;
constexpr std::string_view kIndexName = "model.safetensors.index.json";

int64_t numel_of(const WriteTensor& tensor) {
  int64_t n = 1;
  for (const int64_t size : tensor.shape) {
    TEMPER_CHECK(size >= 0 && !__builtin_mul_overflow(n, size, &n), "[write_hf_folder] tensor \"",
                 tensor.name, "\" has a negative size, or too many elements");
  }
  return n;
}

/// Tensors in the order given, [first, last) a shard; a tensor above the limit has its own.
std::vector<std::pair<size_t, size_t>> plan_shards(std::span<const WriteTensor> tensors,
                                                   const HfFolderOptions& options) {
  std::vector<std::pair<size_t, size_t>> shards;
  const auto element = static_cast<int64_t>(dtype_size(options.dtype));
  size_t first = 0;
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    int64_t size = 0;
    TEMPER_CHECK(!__builtin_mul_overflow(numel_of(tensors[i]), element, &size),
                 "[write_hf_folder] tensor \"", tensors[i].name, "\" has too many bytes");
    if (i > first && size > options.max_shard_bytes - bytes) {
      shards.emplace_back(first, i);
      first = i;
      bytes = 0;
    }
    bytes += size;
  }
  shards.emplace_back(first, tensors.size());
  return shards;
}

std::string shard_name(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

void write_shard(const fs::path& path, std::span<const WriteTensor> tensors, DType dtype) {
  std::vector<TensorSpec> specs;
  for (const WriteTensor& tensor : tensors) specs.push_back({tensor.name, dtype, tensor.shape});
  std::vector<float> values;
  std::vector<std::byte> narrow;
  write_safetensors_streamed(path, specs, [&](size_t i) -> std::span<const std::byte> {
    values.resize(static_cast<size_t>(numel_of(tensors[i])));
    tensors[i].fill(values);
    if (dtype == DType::kF32) return std::as_bytes(std::span<const float>(values));
    narrow.resize(values.size() * dtype_size(dtype));
    copy_from_float(values, dtype, narrow);
    return narrow;
  });
}

/// Weight files that an earlier save left and that a reader would mix with this one's.
void remove_stale_weights(const fs::path& folder, const std::set<std::string>& written) {
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool weights = name == "model.safetensors" || name == kIndexName ||
                         (name.starts_with("model-") && name.ends_with(".safetensors") &&
                          name.find("-of-") != std::string::npos);
    if (weights && !written.contains(name)) stale.push_back(entry.path());
  }
  for (const fs::path& path : stale) fs::remove(path);
}

std::set<std::string> write_weights(const fs::path& folder, std::span<const WriteTensor> tensors,
                                    const HfFolderOptions& options) {
  const auto shards = plan_shards(tensors, options);
  std::set<std::string> written;
  nlohmann::json weight_map = nlohmann::json::object();
  int64_t total = 0;
  for (size_t s = 0; s < shards.size(); ++s) {
    const std::string name = shard_name(s, shards.size());
    const auto [first, last] = shards[s];
    write_shard(folder / name, tensors.subspan(first, last - first), options.dtype);
    for (size_t i = first; i < last; ++i) {
      weight_map[tensors[i].name] = name;
      total += numel_of(tensors[i]);
    }
    written.insert(name);
  }
  if (shards.size() > 1) {
    const auto bytes = total * static_cast<int64_t>(dtype_size(options.dtype));
    OrderedJson index{{"metadata", {{"total_parameters", total}, {"total_size", bytes}}}};
    index["weight_map"] = weight_map;
    const std::string name(kIndexName);
    write_file_atomically(folder / name, detail::dump_json(index, name));
    written.insert(name);
  }
  return written;
}

std::string config_text(const ModelSource& meta, DType dtype) {
  OrderedJson original;
  if (!meta.config_json.empty()) {
    original = detail::parse_small_json<OrderedJson>(meta.config_json, meta.path + ": config.json",
                                                     kMaxConfigValues);
  }
  OrderedJson json = model_config_json(meta.config, original.is_null() ? nullptr : &original);
  const std::string name = dtype == DType::kF32    ? "float32"
                           : dtype == DType::kBF16 ? "bfloat16"
                                                   : "float16";
  json["dtype"] = name;
  json["torch_dtype"] = name;  // version 4's spelling
  return detail::dump_json(json, "config.json");
}

std::string generation_text(const ModelSource& meta) {
  if (!meta.tokenizer.generation_config_json.empty()) return meta.tokenizer.generation_config_json;
  OrderedJson json = OrderedJson::object();
  const GenerationConfig& g = meta.generation;
  if (g.bos_token_id) json["bos_token_id"] = *g.bos_token_id;
  if (g.eos_token_ids.size() == 1) json["eos_token_id"] = g.eos_token_ids.front();
  if (g.eos_token_ids.size() > 1) json["eos_token_id"] = g.eos_token_ids;
  if (g.pad_token_id) json["pad_token_id"] = *g.pad_token_id;
  return detail::dump_json(json, "generation_config.json");
}

/// Older readers look for the template here, newer ones in chat_template.jinja first.
std::string tokenizer_config_text(const ModelSource& meta) {
  const std::string& text = meta.tokenizer.tokenizer_config_json;
  if (meta.chat_template.empty()) return text;
  const std::string source = meta.path + ": tokenizer_config.json";
  auto json = detail::parse_small_json<OrderedJson>(text.empty() ? "{}" : text, source,
                                                    kMaxTokenizerValues);
  TEMPER_CHECK(json.is_object(), "[write_hf_folder] ", source, ": expected a JSON object");
  if (json.contains("chat_template")) return text;
  json["chat_template"] = meta.chat_template;
  return detail::dump_json(json, source);
}

void check_request(std::span<const WriteTensor> tensors, const ModelSource& meta,
                   const HfFolderOptions& options) {
  const DType d = options.dtype;
  TEMPER_CHECK(d == DType::kF32 || d == DType::kBF16 || d == DType::kF16,
               "[write_hf_folder] expected F32, BF16 or F16, got ", dtype_name(d));
  TEMPER_CHECK(options.max_shard_bytes > 0,
               "[write_hf_folder] max_shard_bytes must be positive, "
               "got ",
               options.max_shard_bytes);
  std::set<std::string_view> names;
  for (const WriteTensor& tensor : tensors) {
    TEMPER_CHECK(names.insert(tensor.name).second, "[write_hf_folder] two tensors are called \"",
                 tensor.name, "\"");
    TEMPER_CHECK(!meta.config.tied || tensor.name != "lm_head.weight",
                 "[write_hf_folder] lm_head.weight is tied to the embedding: it is stored once, as "
                 "model.embed_tokens.weight");
  }
}

}  // namespace

void write_hf_folder(const fs::path& folder, const ModelSource& meta,
                     std::span<const WriteTensor> tensors, const HfFolderOptions& options) {
  check_request(tensors, meta, options);
  const std::string config = config_text(meta, options.dtype);
  std::error_code error;
  fs::create_directories(folder, error);
  TEMPER_CHECK(!error && fs::is_directory(folder), "[write_hf_folder] cannot create ",
               folder.string(), ": ", error.message());
  // From here to the end the folder is not whole, and says so by having no config.
  fs::remove(folder / "config.json", error);
  remove_stale_weights(folder, write_weights(folder, tensors, options));
  const TokenizerFiles& t = meta.tokenizer;
  const std::pair<std::string_view, std::string> files[] = {
      {"tokenizer.json", t.tokenizer_json},
      {"tokenizer.model", t.sentencepiece_model},
      {"tokenizer_config.json", tokenizer_config_text(meta)},
      {"special_tokens_map.json", t.special_tokens_map_json},
      {"added_tokens.json", t.added_tokens_json},
      {"vocab.json", t.vocab_json},
      {"merges.txt", t.merges_txt},
      {"chat_template.jinja", meta.chat_template},
      {"generation_config.json", generation_text(meta)},
      {"config.json", config},
  };
  for (const auto& [name, content] : files) {
    if (!content.empty()) write_file_atomically(folder / name, content);
  }
}

}  // namespace temper
