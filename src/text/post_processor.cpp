#include "post_processor.h"

#include <utility>

#include "json_parts.h"

namespace temper {
namespace {

constexpr size_t kMaxTemplatePieces = 64;

}  // namespace

PostProcessor::PostProcessor(const nlohmann::json& json, int64_t id_end, const std::string& where) {
  if (!json.is_null()) add(json, 0, id_end, where);
}

void PostProcessor::add(const nlohmann::json& json, int depth, int64_t id_end,
                        const std::string& where) {
  const std::string& type = string_member(json, "type", where);
  if (type == "Sequence") {
    for (const Json& part : sequence_parts(json, "processors", depth, where)) {
      add(part, depth + 1, id_end, where);
    }
  } else if (type == "TemplateProcessing") {
    TEMPER_CHECK(!has_template_, where, " has two templates");
    read_template(json, id_end, where);
  } else {
    // ByteLevel only moves character offsets, which nobody asks for here.
    TEMPER_CHECK(type == "ByteLevel", where, " is of type \"", type,
                 "\", which is not supported (TemplateProcessing, ByteLevel and Sequence are)");
  }
}

void PostProcessor::read_template(const nlohmann::json& json, int64_t id_end,
                                  const std::string& where) {
  has_template_ = true;
  const Json& pieces = member(json, "single", where);
  TEMPER_CHECK(pieces.is_array() && pieces.size() <= kMaxTemplatePieces, where,
               ": \"single\" must be an array of at most ", kMaxTemplatePieces, " pieces");
  for (const Json& piece : pieces) {
    TEMPER_CHECK(piece.is_object() && piece.size() == 1, where,
                 ": a piece of \"single\" must be a Sequence or a SpecialToken");
    if (piece.contains("Sequence")) {
      const std::string& name = string_member(piece["Sequence"], "id", where);
      TEMPER_CHECK(name == "A", where, ": \"single\" names the sequence \"", name,
                   "\"; there is only A");
      pieces_.push_back({true, {}});
      continue;
    }
    const std::string& name = string_member(member(piece, "SpecialToken", where), "id", where);
    const Json& tokens = member(json, "special_tokens", where);
    const Json& ids = member(member(tokens, name.c_str(), where), "ids", where);
    TEMPER_CHECK(ids.is_array() && ids.size() <= kMaxTemplatePieces, where, ": the ids of \"", name,
                 "\" must be an array of at most ", kMaxTemplatePieces, " ids");
    Piece out;
    for (const Json& id : ids) {
      out.ids.push_back(static_cast<int32_t>(
          checked_integer(id, id_end - 1, where + ": an id of \"" + name + "\"")));
    }
    pieces_.push_back(std::move(out));
  }
}

std::vector<int32_t> PostProcessor::operator()(std::vector<int32_t> ids,
                                               bool add_special_tokens) const {
  if (!has_template_) return ids;
  std::vector<int32_t> out;
  out.reserve(ids.size() + pieces_.size());
  for (const Piece& piece : pieces_) {
    if (piece.is_text) {
      out.insert(out.end(), ids.begin(), ids.end());
    } else if (add_special_tokens) {
      out.insert(out.end(), piece.ids.begin(), piece.ids.end());
    }
  }
  return out;
}

}  // namespace temper
