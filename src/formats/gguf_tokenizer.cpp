#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "gguf_parts.h"
#include "gguf_pretokenizer.h"
#include "json_util.h"
#include "temper/core/error.h"

namespace temper::detail {
namespace {

using OrderedJson = nlohmann::ordered_json;
using Strings = std::vector<std::string_view>;
using Ids = std::unordered_map<std::string_view, size_t>;

enum TokenType : int64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
constexpr size_t kMaxSplitBytes = 512;  // longer pieces are no results of merging

/// The `tokenizer.ggml.*` lists, equal in length, without padding rows at the end.
struct Vocabulary {
  Strings tokens;
  std::vector<int64_t> types;
  std::vector<double> scores;  ///< Empty when the file has none.
  Ids ids;
};

Vocabulary read_vocabulary(const GgufFile& file, const ModelConfig& config) {
  const auto* tokens = file.find<Strings>("tokenizer.ggml.tokens");
  TEMPER_CHECK(tokens != nullptr && !tokens->empty(), "[gguf] ", file.source(),
               ": tokenizer.ggml.tokens is missing");
  TEMPER_CHECK(tokens->size() <= static_cast<size_t>(config.vocab_size), "[gguf] ", file.source(),
               ": ", tokens->size(), " tokens, but the embedding has ", config.vocab_size, " rows");
  Vocabulary v{*tokens, std::vector<int64_t>(tokens->size(), kNormal), {}, {}};
  if (const auto* types = file.find<std::vector<int64_t>>("tokenizer.ggml.token_type")) {
    v.types = *types;
  }
  if (const auto* scores = file.find<std::vector<double>>("tokenizer.ggml.scores")) {
    v.scores = *scores;
  }
  TEMPER_CHECK(
      v.types.size() == v.tokens.size() && (v.scores.empty() || v.scores.size() == v.tokens.size()),
      "[gguf] ", file.source(), ": ", v.tokens.size(), " tokens, ", v.types.size(), " types and ",
      v.scores.size(), " scores");
  while (!v.types.empty() && v.types.back() == kUnused) {
    v.types.pop_back();
    v.tokens.pop_back();
  }
  v.ids.reserve(v.tokens.size());
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    TEMPER_CHECK(v.ids.emplace(v.tokens[i], i).second, "[gguf] ", file.source(), ": the token \"",
                 v.tokens[i], "\" occurs twice");
  }
  return v;
}

struct Merge {
  std::string_view left, right;
};

/// A sentencepiece model joins the pair whose result scores best. As ranked merges: every token's
/// splits into two tokens, by the token's score; then longer left, then longer right parts first.
std::vector<Merge> merges_from_scores(const Vocabulary& v) {
  struct Candidate {
    Merge merge;
    double score;
    size_t left_chars, right_chars, left_id, right_id;
  };
  const auto is_tail = [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) == 0x80u; };
  const auto usable = [&](size_t id) {
    return v.types[id] == kNormal || v.types[id] == kUserDefined;
  };
  std::vector<Candidate> all;
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const std::string_view token = v.tokens[id];
    if (!usable(id) || token.size() > kMaxSplitBytes) continue;
    const auto total =
        token.size() - static_cast<size_t>(std::count_if(token.begin(), token.end(), is_tail));
    const size_t first = all.size();
    size_t chars = 0;
    for (size_t i = 1; i < token.size(); ++i) {
      if (is_tail(token[i])) continue;
      ++chars;
      const auto left = v.ids.find(token.substr(0, i)), right = v.ids.find(token.substr(i));
      if (left == v.ids.end() || right == v.ids.end()) continue;
      if (!usable(left->second) || !usable(right->second)) continue;
      all.push_back({{left->first, right->first},
                     v.scores[id],
                     chars,
                     total - chars,
                     left->second,
                     right->second});
    }
    std::sort(all.begin() + static_cast<std::ptrdiff_t>(first), all.end(),
              [](const Candidate& a, const Candidate& b) {
                return std::pair(a.left_id, a.right_id) < std::pair(b.left_id, b.right_id);
              });
  }
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    return std::tuple(a.score, a.left_chars, a.right_chars) >
           std::tuple(b.score, b.left_chars, b.right_chars);
  });
  std::vector<Merge> merges;
  merges.reserve(all.size());
  for (const Candidate& c : all) merges.push_back(c.merge);
  return merges;
}

std::vector<Merge> merges_from_file(const GgufFile& file, const Vocabulary& v) {
  const auto* lines = file.find<Strings>("tokenizer.ggml.merges");
  TEMPER_CHECK(lines != nullptr, "[gguf] ", file.source(), ": tokenizer.ggml.merges is missing");
  std::vector<Merge> merges;
  merges.reserve(lines->size());
  for (const std::string_view line : *lines) {
    const size_t space = line.find(' ', 1);  // the left part may be a space itself
    const bool two = space != std::string_view::npos && space + 1 < line.size();
    TEMPER_CHECK(two, "[gguf] ", file.source(), ": the merge \"", line, "\" is not two tokens");
    merges.push_back({line.substr(0, space), line.substr(space + 1)});
    TEMPER_CHECK(v.ids.contains(merges.back().left) && v.ids.contains(merges.back().right),
                 "[gguf] ", file.source(), ": the merge \"", line, "\" names no two tokens");
  }
  return merges;
}

std::string quoted(std::string_view text) { return OrderedJson(text).dump(); }

/// The model part as text: the vocabulary is too long for a document tree to be worth it.
std::string model_text(const Vocabulary& v, const std::vector<Merge>& merges,
                       const OrderedJson& settings) {
  std::string text = settings.dump();
  text.back() = ',';  // goes on in place of the closing brace
  text += "\"vocab\":{";
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    if (i > 0) text += ',';
    text += quoted(v.tokens[i]) + ":" + std::to_string(i);
  }
  text += "},\"merges\":[";
  for (size_t i = 0; i < merges.size(); ++i) {
    if (i > 0) text += ',';
    text += "[" + quoted(merges[i].left) + "," + quoted(merges[i].right) + "]";
  }
  return text + "]}";
}

OrderedJson added_tokens(const Vocabulary& v, bool sentencepiece) {
  OrderedJson list = OrderedJson::array();
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    const bool special = v.types[i] == kControl || (sentencepiece && v.types[i] == kUnknown);
    if (!special && v.types[i] != kUserDefined) continue;
    list.push_back({{"id", i},
                    {"content", v.tokens[i]},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", special}});
  }
  return list;
}

/// Puts the BOS token in front of a sequence, and of each of a pair.
OrderedJson bos_template(std::string_view token, size_t id) {
  const auto special = [&](int type) {
    return OrderedJson{{"SpecialToken", {{"id", token}, {"type_id", type}}}};
  };
  const auto sequence = [](std::string_view name, int type) {
    return OrderedJson{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  OrderedJson tokens;
  tokens[std::string(token)] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
  return {
      {"type", "TemplateProcessing"},
      {"single", OrderedJson::array({special(0), sequence("A", 0)})},
      {"pair", OrderedJson::array({special(0), sequence("A", 0), special(1), sequence("B", 1)})},
      {"special_tokens", tokens}};
}

std::string tokenizer_config(const GgufFile& file, const Vocabulary& v, const GgufSpecialIds& ids,
                             bool add_bos, int64_t max_positions) {
  OrderedJson json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                   {"add_bos_token", add_bos},
                   {"clean_up_tokenization_spaces", false},
                   {"model_max_length", max_positions}};
  const auto name = [&](const char* key, const std::optional<int32_t>& id) {
    if (!id) return;
    TEMPER_CHECK(static_cast<size_t>(*id) < v.tokens.size(), "[gguf] ", file.source(), ": ", key,
                 " has the id ", *id, ", but there are ", v.tokens.size(), " tokens");
    json[key] = v.tokens[static_cast<size_t>(*id)];
  };
  name("bos_token", ids.bos);
  name("eos_token", ids.eos);
  name("pad_token", ids.pad);
  name("unk_token", ids.unk);
  return dump_json(json, file.source());
}

std::string generation_config(const GgufFile& file, const GgufSpecialIds& ids) {
  OrderedJson json = OrderedJson::object();
  if (ids.bos) json["bos_token_id"] = *ids.bos;
  if (ids.ends.size() == 1) json["eos_token_id"] = ids.ends.front();
  if (ids.ends.size() > 1) json["eos_token_id"] = ids.ends;
  if (ids.pad) json["pad_token_id"] = *ids.pad;
  return dump_json(json, file.source());
}

}  // namespace

TokenizerFiles gguf_tokenizer(const GgufFile& file, const ModelConfig& config) {
  const auto* model = file.find<std::string_view>("tokenizer.ggml.model");
  TEMPER_CHECK(model != nullptr && (*model == "gpt2" || *model == "llama"), "[gguf] ",
               file.source(), ": the tokenizer model \"", model != nullptr ? *model : "(none)",
               "\" is not supported; supported are gpt2 and llama");
  const bool sentencepiece = *model == "llama";
  const Vocabulary v = read_vocabulary(file, config);
  const GgufSpecialIds ids = gguf_special_ids(file);
  const Pretokenizer pre = gguf_pretokenizer(file, sentencepiece);
  TEMPER_CHECK(!sentencepiece || !v.scores.empty(), "[gguf] ", file.source(),
               ": tokenizer.ggml.scores is missing");
  const auto* add_bos_key = file.find<bool>("tokenizer.ggml.add_bos_token");
  const bool add_bos = (add_bos_key != nullptr ? *add_bos_key : pre.adds_bos) && ids.bos;
  try {
    TokenizerFiles files;
    files.tokenizer_config_json = tokenizer_config(file, v, ids, add_bos, config.max_positions);
    files.generation_config_json = generation_config(file, ids);
    OrderedJson settings{{"type", "BPE"},
                         {"dropout", nullptr},
                         {"unk_token", nullptr},
                         {"continuing_subword_prefix", nullptr},
                         {"end_of_word_suffix", nullptr},
                         {"fuse_unk", sentencepiece},
                         {"byte_fallback", sentencepiece},
                         {"ignore_merges", pre.ignore_merges}};
    if (sentencepiece && ids.unk) settings["unk_token"] = v.tokens[static_cast<size_t>(*ids.unk)];
    OrderedJson json{{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added_tokens(v, sentencepiece)},
                     {"normalizer", OrderedJson::parse(pre.normalizer)},
                     {"pre_tokenizer", OrderedJson::parse(pre.pre_tokenizer)},
                     {"post_processor", nullptr},
                     {"decoder", OrderedJson::parse(pre.decoder)}};
    if (add_bos) {
      const auto bos = static_cast<size_t>(*ids.bos);
      json["post_processor"] = bos_template(v.tokens[bos], bos);
    }
    files.tokenizer_json = json.dump();
    files.tokenizer_json.back() = ',';
    files.tokenizer_json += "\"model\":";
    files.tokenizer_json +=
        model_text(v, sentencepiece ? merges_from_scores(v) : merges_from_file(file, v), settings);
    files.tokenizer_json += "}";
    return files;
  } catch (const nlohmann::json::exception&) {
    fail("[gguf] ", file.source(), ": the vocabulary holds text that is not valid UTF-8");
  }
}

}  // namespace temper::detail

namespace temper {

ModelSource open_gguf_model(const GgufFile& file) {
  ModelSource model;
  model.path = file.source();
  model.config = detail::gguf_config(file);
  model.weights = detail::gguf_weights(file, model.config);
  model.tokenizer = detail::gguf_tokenizer(file, model.config);
  if (const auto* text = file.find<std::string_view>("tokenizer.chat_template")) {
    model.chat_template = *text;
  }
  model.generation = {model.config.eos_token_ids, model.config.bos_token_id,
                      model.config.pad_token_id};
  return model;
}

}  // namespace temper
