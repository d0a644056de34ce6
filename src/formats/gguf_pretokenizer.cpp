#include "gguf_pretokenizer.h"

#include <nlohmann/json.hpp>

#include "temper/core/error.h"

namespace temper::detail {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr std::string_view kContractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
constexpr std::string_view kWord = R"([^\r\n\p{L}\p{N}]?\p{L}+)";
constexpr std::string_view kRest = R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

OrderedJson byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

OrderedJson sequence_of(std::string_view member, OrderedJson first, OrderedJson second) {
  OrderedJson json{{"type", "Sequence"}};
  json[std::string(member)] = OrderedJson::array({std::move(first), std::move(second)});
  return json;
}

/// Splits by Llama 3's regex, with runs of at most this many digits, then maps bytes.
OrderedJson split_then_bytes(std::string_view digits) {
  const std::string regex = concat(kContractions, "|", kWord, "|", digits, "|", kRest);
  OrderedJson split{{"type", "Split"},
                    {"pattern", {{"Regex", regex}}},
                    {"behavior", "Isolated"},
                    {"invert", false}};
  return sequence_of("pretokenizers", std::move(split), byte_level(false));
}

/// A space is the letter U+2581; bytes without a token have byte tokens; the space that was put in
/// front of the text is taken off again.
Pretokenizer sentencepiece_parts(bool space_prefix) {
  const std::string space = "\u2581";
  Pretokenizer p;
  p.adds_bos = true;
  OrderedJson replace{{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space}};
  OrderedJson decoders =
      OrderedJson::array({{{"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", " "}},
                          {{"type", "ByteFallback"}},
                          {{"type", "Fuse"}}});
  if (space_prefix) {
    replace = sequence_of("normalizers", {{"type", "Prepend"}, {"prepend", space}}, replace);
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  p.normalizer = replace.dump();
  p.decoder = OrderedJson{{"type", "Sequence"}, {"decoders", decoders}}.dump();
  return p;
}

}  // namespace

Pretokenizer gguf_pretokenizer(const GgufFile& file, bool sentencepiece) {
  if (sentencepiece) {
    const auto* prefix = file.find<bool>("tokenizer.ggml.add_space_prefix");
    return sentencepiece_parts(prefix == nullptr || *prefix);
  }
  const auto* key = file.find<std::string_view>("tokenizer.ggml.pre");
  const std::string_view name = key != nullptr ? *key : "default";
  Pretokenizer p;
  p.decoder = byte_level(true).dump();
  if (name == "gpt-2" || name == "default") {
    p.pre_tokenizer = byte_level(true).dump();
  } else if (name == "smollm") {
    const OrderedJson digits{{"type", "Digits"}, {"individual_digits", true}};
    p.pre_tokenizer = sequence_of("pretokenizers", digits, byte_level(true)).dump();
  } else if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") {
    p.pre_tokenizer = split_then_bytes(R"(\p{N}{1,3})").dump();
    p.ignore_merges = true;
    p.adds_bos = true;
  } else if (name == "qwen2" || name == "deepseek-r1-qwen") {
    p.normalizer = R"({"type":"NFC"})";
    p.pre_tokenizer = split_then_bytes(R"(\p{N})").dump();
  } else {
    fail("[gguf] ", file.source(), ": the pre-tokenizer \"", name,
         "\" (tokenizer.ggml.pre) is not "
         "supported; supported are smollm, llama-bpe, qwen2, gpt-2 and default");
  }
  return p;
}

}  // namespace temper::detail
