#include "temper/data/preference.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "json_rows.h"
#include "temper/core/error.h"
#include "temper/core/log.h"
#include "transcript.h"

namespace temper {
namespace {

using Json = nlohmann::json;
using Turns = std::vector<ChatMessage>;

void append(Turns& to, const Turns& more) { to.insert(to.end(), more.begin(), more.end()); }

bool begins_with(const Turns& turns, const Turns& head) {
  return turns.size() > head.size() && std::equal(head.begin(), head.end(), turns.begin());
}

/// One row on its way from JSON to a pair.
class PairParser {
 public:
  PairParser(const Json& object, std::string where, const PreferenceReadOptions& options)
      : object_(object), where_(std::move(where)), options_(options) {}

  PreferencePair parse() const {
    TEMPER_CHECK(!object_.contains("tools") || object_["tools"].empty(), "[read_jsonl] ", where_,
                 ": key \"tools\": conversations with tools are not read");
    const std::optional<Passage> prompt = read(options_.prompt_key);
    std::optional<Passage> chosen = read(options_.chosen_key);
    std::optional<Passage> rejected = read(options_.rejected_key);
    for (const auto& [key, side] :
         {std::pair(&options_.chosen_key, &chosen), std::pair(&options_.rejected_key, &rejected)}) {
      TEMPER_CHECK(side->has_value(), "[read_jsonl] ", where_,
                   ": expected an answer under the key ", "\"", *key, "\", the row has ",
                   detail::key_names(object_));
    }
    PreferencePair pair;
    pair.chosen = std::move(*chosen);
    pair.rejected = std::move(*rejected);
    place_prompt(pair, prompt.value_or(Passage{}));
    pair.margin = margin();
    return pair;
  }

 private:
  /// The words under a key; nothing where it is missing or null.
  std::optional<Passage> read(const std::string& key) const {
    const auto it = object_.find(key);
    if (it == object_.end() || it->is_null()) return std::nullopt;
    Passage out;
    if (it->is_string()) {
      out.text = it->get<std::string>();
      return out;
    }
    if (!it->is_array()) detail::refuse_value(where_, key, "a string or an array of messages", *it);
    TEMPER_CHECK(!it->empty(), "[read_jsonl] ", where_, ": key \"", key,
                 "\": the conversation has no messages");
    for (size_t i = 0; i < it->size(); ++i) {
      const std::string at = concat(key, "[", i, "]");
      out.turns.push_back(detail::read_message((*it)[i], where_, at));
      TEMPER_CHECK(!(*it)[i].contains("tool_calls"), "[read_jsonl] ", where_, ": key \"", at,
                   ".tool_calls\": conversations with tools are not read");
    }
    return out;
  }

  double margin() const {
    const auto it = object_.find(options_.margin_key);
    if (it == object_.end() || it->is_null()) return 0;
    if (!it->is_number()) detail::refuse_value(where_, options_.margin_key, "a number", *it);
    return it->get<double>();
  }

  void place_prompt(PreferencePair& pair, Passage prompt) const {
    pair.conversation =
        !pair.chosen.turns.empty() || !pair.rejected.turns.empty() || !prompt.turns.empty();
    if (!pair.conversation) return place_text(pair, std::move(prompt));
    for (const auto& [key, side] : {std::pair(&options_.chosen_key, &pair.chosen),
                                    std::pair(&options_.rejected_key, &pair.rejected)}) {
      if (!side->turns.empty()) continue;
      TEMPER_CHECK(!prompt.turns.empty(), "[read_jsonl] ", where_, ": key \"", *key,
                   "\": expected messages, as the other side has, got a string");
      if (!side->text.empty()) side->turns.push_back({"assistant", side->text});
      side->text.clear();
    }
    place_turns(pair, std::move(prompt));
  }

  void place_text(PreferencePair& pair, Passage prompt) const {
    if (!prompt.text.empty()) {
      pair.prompt = std::move(prompt);
      return;
    }
    std::string& a = pair.chosen.text;
    std::string& b = pair.rejected.text;
    const bool transcripts =
        options_.transcripts != "off" && detail::is_transcript(a) && detail::is_transcript(b);
    if (transcripts && options_.transcripts != "text") {
      pair.conversation = true;
      pair.chosen = {"", transcript_turns(a)};
      pair.rejected = {"", transcript_turns(b)};
      return place_turns(pair, {});
    }
    const size_t shared = transcripts ? detail::shared_turns(a, b) : shared_beginning(a, b);
    pair.prompt.text = a.substr(0, shared);
    a.erase(0, shared);
    b.erase(0, shared);
  }

  static void place_turns(PreferencePair& pair, Passage prompt) {
    Turns& a = pair.chosen.turns;
    Turns& b = pair.rejected.turns;
    const bool answers_alone =
        !a.empty() && !b.empty() && a.front().role == "assistant" && b.front().role == "assistant";
    if (!prompt.turns.empty()) {
      pair.prompt.turns = std::move(prompt.turns);
      if (begins_with(a, pair.prompt.turns) && begins_with(b, pair.prompt.turns)) {
        const auto n = std::ssize(pair.prompt.turns);
        a.erase(a.begin(), a.begin() + n);
        b.erase(b.begin(), b.begin() + n);
      }
      return;
    }
    if (!prompt.text.empty() && answers_alone) {
      pair.prompt.turns.push_back({"user", std::move(prompt.text)});
      return;
    }
    size_t n = 0;
    while (n < a.size() && n < b.size() && a[n] == b[n]) ++n;
    const auto end = static_cast<std::ptrdiff_t>(n);
    append(pair.prompt.turns, Turns(a.begin(), a.begin() + end));
    a.erase(a.begin(), a.begin() + end);
    b.erase(b.begin(), b.begin() + end);
  }

  const Json& object_;
  std::string where_;
  const PreferenceReadOptions& options_;
};

/// An answer without any words.
bool says_nothing(const Passage& side) {
  for (const ChatMessage& turn : side.turns) {
    if (turn.content.find_first_not_of(" \t\r\n") != std::string::npos) return false;
  }
  return side.text.find_first_not_of(" \t\r\n") == std::string::npos;
}

uint64_t id_of(const PreferencePair& pair) {
  const Passage& from = pair.prompt.empty() ? pair.chosen : pair.prompt;
  return prompt_id({.prompt = from.text, .messages = from.turns, .answer = {}, .extra_json = {}});
}

PreferenceData read_pairs(detail::ByteSource source, const std::string& name,
                          const PreferenceReadOptions& options) {
  PreferenceData data;
  data.source = name;
  data.license = options.license;
  ReadOptions rows;
  rows.skip_bad = options.skip_bad;
  rows.max_rows = options.max_rows;
  rows.max_line_bytes = options.max_line_bytes;
  detail::RowsRead read =
      detail::read_each_row(std::move(source), name, rows, [&](detail::Row& row) {
        const Json object = detail::parse_object(row, name, options.lossy_utf8);
        PreferencePair pair =
            PairParser(object, detail::position_in(name, row, 0), options).parse();
        if (pair.chosen == pair.rejected) {
          ++data.equal;
        } else if (says_nothing(pair.chosen) || says_nothing(pair.rejected)) {
          ++data.empty;
        } else {
          pair.line = row.line;
          pair.id = id_of(pair);
          data.pairs.push_back(std::move(pair));
        }
      });
  data.content_hash = read.content_hash;
  data.skipped = read.skipped;
  data.problems = std::move(read.problems);
  TEMPER_CHECK(!data.pairs.empty(), "[read_preferences] ", name, ": no pairs: ", data.empty,
               " rows have an empty answer, ", data.equal, " have the same answer twice");
  if (data.empty + data.equal > 0) {
    log_warn("[read_preferences] ", name, ": left out ", data.empty,
             " pairs with an empty answer and ", data.equal, " with the same answer twice");
  }
  return data;
}

}  // namespace

PreferenceData read_preferences(const std::filesystem::path& path,
                                const PreferenceReadOptions& options) {
  return read_pairs(detail::open_bytes(path), path.string(), options);
}

PreferenceData parse_preferences(std::string_view text, const std::string& name,
                                 const PreferenceReadOptions& options) {
  return read_pairs(detail::text_bytes(text), name, options);
}

std::pair<PreferenceData, PreferenceData> split_by_hash(const PreferenceData& data,
                                                        double held_out_fraction, uint64_t seed) {
  TEMPER_CHECK(held_out_fraction >= 0 && held_out_fraction <= 1,
               "[split_by_hash] held_out_fraction must be in [0, 1], got ", held_out_fraction);
  std::pair<PreferenceData, PreferenceData> parts;
  for (PreferenceData* part : {&parts.first, &parts.second}) {
    part->source = data.source;
    part->license = data.license;
    part->content_hash = data.content_hash;
  }
  parts.first.skipped = data.skipped;
  parts.first.empty = data.empty;
  parts.first.equal = data.equal;
  parts.first.problems = data.problems;
  for (const PreferencePair& pair : data.pairs) {
    const bool held_out = split_position(pair.id, seed) < held_out_fraction;
    (held_out ? parts.second : parts.first).pairs.push_back(pair);
  }
  return parts;
}

}  // namespace temper
