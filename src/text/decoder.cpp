#include "decoder.h"

#include <utility>

#include "decode_stages.h"
#include "json_parts.h"
#include "temper/text/unicode.h"

namespace temper {
namespace {

constexpr int64_t kMaxStrip = 1 << 20;
constexpr size_t kMaxContent = 32;  // bytes that Replace may put in at one place
constexpr size_t kMaxStages = 64;

std::string one_character(const Json& json, const char* key, const std::string& where) {
  const std::string& text = string_member(json, key, where);
  TEMPER_CHECK(!text.empty() && unicode::sequence_length(text) == text.size(), where, ": \"", key,
               "\" must be one character");
  return text;
}

StripStage::Config strip_config(const Json& json, bool fused, const std::string& where) {
  StripStage::Config config;
  config.content = one_character(json, "content", where);
  config.start = checked_integer(member(json, "start", where), kMaxStrip, where + ": start");
  config.stop = checked_integer(member(json, "stop", where), kMaxStrip, where + ": stop");
  config.fused = fused;
  return config;
}

MetaspaceStage::Config metaspace_config(const Json& json, bool fused, const std::string& where) {
  MetaspaceStage::Config config;
  config.mark = one_character(json, "replacement", where);
  config.keep_first =
      !bool_member(json, "add_prefix_space", true, where) ||
      (json.contains("prepend_scheme") && string_member(json, "prepend_scheme", where) == "never");
  config.fused = fused;
  return config;
}

}  // namespace

struct DecodeChain::Output final : DecodeStage {
  void push(std::string_view token) override { *out += token; }
  std::string* out = nullptr;
};

DecodeChain::DecodeChain(std::vector<std::unique_ptr<DecodeStage>> stages)
    : stages_(std::move(stages)) {
  stages_.push_back(std::make_unique<Output>());
  for (size_t i = 0; i + 1 < stages_.size(); ++i) stages_[i]->set_next(stages_[i + 1].get());
}

void DecodeChain::push(std::string_view token, std::string* out) {
  static_cast<Output&>(*stages_.back()).out = out;
  stages_.front()->push(token);
}

void DecodeChain::finish(std::string* out) {
  static_cast<Output&>(*stages_.back()).out = out;
  for (const auto& stage : stages_) stage->finish();
}

Decoder::Decoder() {
  factories_.push_back([] { return std::make_unique<JoinStage>(); });
}

Decoder::Decoder(const nlohmann::json& json, const std::string& where) { add(json, 0, where); }

DecodeChain Decoder::start() const {
  std::vector<std::unique_ptr<DecodeStage>> stages;
  for (const Factory& make : factories_) stages.push_back(make());
  return DecodeChain(std::move(stages));
}

// For a step that must see all of the one token that is left after Fuse.
void Decoder::add_whole_text_stage() {
  factories_.push_back([] { return std::make_unique<WholeTextStage>(); });
}

void Decoder::add(const nlohmann::json& json, int depth, const std::string& where) {
  const std::string& type = string_member(json, "type", where);
  if (type == "Sequence") {
    for (const Json& part : sequence_parts(json, "decoders", depth, where)) {
      add(part, depth + 1, where);
    }
  } else if (type == "ByteLevel") {
    if (fused_) add_whole_text_stage();
    fused_ = true;  // its result is a single token
    factories_.push_back([] { return std::make_unique<ByteLevelStage>(); });
  } else if (type == "ByteFallback") {
    if (fused_) add_whole_text_stage();
    factories_.push_back([] { return std::make_unique<ByteFallbackStage>(); });
  } else if (type == "Fuse") {
    fused_ = true;
  } else if (type == "Strip") {
    factories_.push_back([config = strip_config(json, fused_, where)] {
      return std::make_unique<StripStage>(config);
    });
  } else if (type == "Replace") {
    auto pattern = std::make_shared<const Pattern>(member(json, "pattern", where), where);
    const std::string& content = string_member(json, "content", where);
    TEMPER_CHECK(content.size() <= kMaxContent, where, ": \"content\" has ", content.size(),
                 " bytes; at most ", kMaxContent, " are accepted");
    if (fused_ && !pattern->is_single_character()) add_whole_text_stage();
    factories_.push_back(
        [pattern, content] { return std::make_unique<ReplaceStage>(pattern, content); });
  } else if (type == "Metaspace") {
    factories_.push_back([config = metaspace_config(json, fused_, where)] {
      return std::make_unique<MetaspaceStage>(config);
    });
  } else {
    fail(where, " is of type \"", type,
         "\", which is not supported (ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace and "
         "Sequence are)");
  }
  TEMPER_CHECK(factories_.size() <= kMaxStages, where, " has more than ", kMaxStages, " parts");
}

}  // namespace temper
