// One row with two answers on its way from JSON to a pair.
#include <cmath>
#include <cstdlib>
#include <limits>
#include <tuple>

#include "json_rows.h"
#include "passages.h"
#include "temper/core/error.h"
#include "transcript.h"

namespace temper::detail {
namespace {

using Json = nlohmann::json;
using Turns = std::vector<ChatMessage>;

/// The same words and the same calls of tools.
bool same_turn(const RawPassage& a, const RawPassage& b, size_t i) {
  const auto calls = [i](const RawPassage& p) { return p.raw[i].value("tool_calls", Json()); };
  return a.words.turns[i] == b.words.turns[i] && calls(a) == calls(b);
}

void cut_front(RawPassage& from, size_t n) {
  const auto count = static_cast<std::ptrdiff_t>(n);
  from.words.turns.erase(from.words.turns.begin(), from.words.turns.begin() + count);
  from.raw.erase(from.raw.begin(), from.raw.begin() + count);
}

RawPassage from_turns(Turns turns) {
  RawPassage out;
  for (const ChatMessage& t : turns) out.raw.push_back({{"role", t.role}, {"content", t.content}});
  out.words.turns = std::move(turns);
  return out;
}

/// All messages of a side, its prompt's included, as text.
std::string whole_json(const RawPassage& prompt, const RawPassage& side) {
  Json all = prompt.raw;
  for (const Json& message : side.raw) all.push_back(message);
  return all.dump();
}

class PairParser {
 public:
  PairParser(const Json& object, const RowContext& row, const PreferenceReadOptions& options)
      : object_(object), row_(row), options_(options) {}

  PreferencePair parse() {
    prompt_ = read(options_.prompt_key).value_or(RawPassage{});
    std::optional<RawPassage> chosen = read(options_.chosen_key);
    std::optional<RawPassage> rejected = read(options_.rejected_key);
    for (const auto& [key, side] :
         {std::pair(&options_.chosen_key, &chosen), std::pair(&options_.rejected_key, &rejected)}) {
      TEMPER_CHECK(side->has_value(), "[read_jsonl] ", row_.where,
                   ": expected an answer under the key ", "\"", *key, "\", the row has ",
                   key_names(object_));
    }
    chosen_ = std::move(*chosen);
    rejected_ = std::move(*rejected);
    PreferencePair pair;
    pair.conversation = place_prompt();
    if (has_more_than_words(prompt_.raw) || has_more_than_words(chosen_.raw) ||
        has_more_than_words(rejected_.raw)) {
      pair.chosen_json = whole_json(prompt_, chosen_);
      pair.rejected_json = whole_json(prompt_, rejected_);
    }
    pair.prompt = std::move(prompt_.words);
    pair.chosen = std::move(chosen_.words);
    pair.rejected = std::move(rejected_.words);
    pair.tools_json = read_tools(object_, row_.where);
    pair.margin = read_number(object_, options_.margin_key, row_.where, row_.cells).value_or(0);
    return pair;
  }

 private:
  std::optional<RawPassage> read(const std::string& key) const {
    return read_passage(object_, key, row_.where, Tools::kKeep);
  }

  /// @return whether the pair is a conversation.
  bool place_prompt() {
    const bool conversation = !chosen_.words.turns.empty() || !rejected_.words.turns.empty() ||
                              !prompt_.words.turns.empty();
    if (!conversation) return place_text();
    for (const auto& [key, side] : {std::pair(&options_.chosen_key, &chosen_),
                                    std::pair(&options_.rejected_key, &rejected_)}) {
      if (!side->words.turns.empty()) continue;
      TEMPER_CHECK(!prompt_.words.turns.empty(), "[read_jsonl] ", row_.where, ": key \"", *key,
                   "\": expected messages, as the other side has, got a string");
      if (!side->words.text.empty()) make_turns(*side, "assistant");
    }
    place_turns();
    return true;
  }

  bool place_text() {
    if (!prompt_.words.text.empty()) return false;
    std::string& a = chosen_.words.text;
    std::string& b = rejected_.words.text;
    const bool transcripts = options_.transcripts != "off" && is_transcript(a) && is_transcript(b);
    if (transcripts && options_.transcripts != "text") {
      chosen_ = from_turns(transcript_turns(a));
      rejected_ = from_turns(transcript_turns(b));
      place_turns();
      return true;
    }
    const size_t shared = transcripts ? shared_turns(a, b) : shared_beginning(a, b);
    prompt_.words.text = a.substr(0, shared);
    a.erase(0, shared);
    b.erase(0, shared);
    return false;
  }

  void place_turns() {
    const Turns &a = chosen_.words.turns, &b = rejected_.words.turns, &head = prompt_.words.turns;
    if (!head.empty()) {
      if (!begins_with(a, head) || !begins_with(b, head)) return;
      const size_t n = head.size();
      cut_front(chosen_, n);
      cut_front(rejected_, n);
      return;
    }
    const bool answers_alone =
        !a.empty() && !b.empty() && a.front().role == "assistant" && b.front().role == "assistant";
    if (!prompt_.words.text.empty() && answers_alone) return make_turns(prompt_, "user");
    size_t n = 0;
    while (n < a.size() && n < b.size() && same_turn(chosen_, rejected_, n)) ++n;
    const auto end = static_cast<std::ptrdiff_t>(n);
    prompt_.words = {"", {a.begin(), a.begin() + end}};
    prompt_.raw = Json(Json::array_t(chosen_.raw.begin(), chosen_.raw.begin() + end));
    cut_front(chosen_, n);
    cut_front(rejected_, n);
  }

  const Json& object_;
  const RowContext& row_;
  const PreferenceReadOptions& options_;
  RawPassage prompt_, chosen_, rejected_;
};

std::string text_under(const Json& object, const std::string& key, const RowContext& row,
                       const std::string& path) {
  const auto it = object.find(key);
  TEMPER_CHECK(it != object.end(), "[read_jsonl] ", row.where, ": expected a text under the key \"",
               path, "\", there are ", key_names(object));
  if (!it->is_string()) refuse_value(row.where, path, "a string", *it);
  return it->get<std::string>();
}

/// Mean of the ratings that are numbers ("N/A" stands where a rater gave none), else the mark of
/// the whole answer; NaN where there is neither. The ratings come first because UltraFeedback's
/// first release has whole marks of 10 where the rater meant 1.
double mark_of(const Json& completion) {
  double sum = 0;
  int count = 0;
  const auto marks = completion.find("annotations");
  if (marks != completion.end() && marks->is_object()) {
    for (const auto& [aspect, mark] : marks->items()) {
      if (!mark.is_object() || !mark.contains("Rating")) continue;
      const Json& rating = mark["Rating"];
      const std::string text = rating.is_string() ? rating.get<std::string>() : rating.dump();
      char* end = nullptr;
      const double value = std::strtod(text.c_str(), &end);
      if (end == text.c_str() || *end != '\0' || !std::isfinite(value)) continue;
      sum += value;
      ++count;
    }
  }
  if (count > 0) return sum / count;
  for (const char* key : {"fine-grained_score", "overall_score"}) {
    const auto it = completion.find(key);
    if (it != completion.end() && it->is_number()) return it->get<double>();
  }
  return std::numeric_limits<double>::quiet_NaN();
}

std::optional<PreferencePair> from_ultrafeedback(const Json& object, const RowContext& row) {
  const Json& completions = object["completions"];
  std::string best, worst;
  double best_mark = -std::numeric_limits<double>::infinity();
  double worst_mark = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < completions.size(); ++i) {
    const std::string path = concat("completions[", i, "]");
    if (!completions[i].is_object()) refuse_value(row.where, path, "an object", completions[i]);
    const double mark = mark_of(completions[i]);
    const std::string text = text_under(completions[i], "response", row, path + ".response");
    if (mark > best_mark) std::tie(best_mark, best) = std::tie(mark, text);
    if (mark < worst_mark) std::tie(worst_mark, worst) = std::tie(mark, text);
  }
  if (!(best_mark > worst_mark)) return std::nullopt;
  PreferencePair pair;
  pair.conversation = true;
  pair.prompt.turns = {{"user", text_under(object, "instruction", row, "instruction")}};
  if (!best.empty()) pair.chosen.turns = {{"assistant", best}};
  if (!worst.empty()) pair.rejected.turns = {{"assistant", worst}};
  return pair;
}

/// "preference" is the expected number of the better answer: 1 the first, 2 the second, between
/// them a probability, 1.5 or 0 a draw.
std::optional<PreferencePair> from_alpaca_eval(const Json& object, const RowContext& row) {
  const std::optional<double> mark = read_number(object, "preference", row.where, row.cells);
  if (!mark || *mark == 0 || *mark == 1.5) return std::nullopt;
  TEMPER_CHECK(*mark >= 1 && *mark <= 2, "[read_jsonl] ", row.where,
               ": key \"preference\": expected a number from 1 to 2, or 0 for a draw, got ", *mark);
  PreferencePair pair;
  pair.conversation = true;
  pair.prompt.turns = {{"user", text_under(object, "instruction", row, "instruction")}};
  for (const char* key : {"output_1", "output_2"}) {
    const bool better = (key[7] == '1') == (*mark < 1.5);
    std::string text = text_under(object, key, row, key);
    if (text.empty()) continue;
    (better ? pair.chosen : pair.rejected).turns = {{"assistant", std::move(text)}};
  }
  return pair;
}

}  // namespace

PreferencePair pair_of_row(const Json& object, const RowContext& row,
                           const PreferenceReadOptions& options) {
  return PairParser(object, row, options).parse();
}

bool same_answers(const PreferencePair& pair) {
  return pair.chosen == pair.rejected && pair.chosen_json == pair.rejected_json;
}

Annotations annotations_of(const Json& object) {
  if (!object.contains("instruction")) return Annotations::kNone;
  const auto completions = object.find("completions");
  if (completions != object.end() && completions->is_array()) return Annotations::kUltraFeedback;
  const bool outputs = object.contains("output_1") && object.contains("output_2");
  return outputs ? Annotations::kAlpacaEval : Annotations::kNone;
}

std::optional<PreferencePair> pair_of_marks(const Json& object, const RowContext& row) {
  switch (annotations_of(object)) {
    case Annotations::kUltraFeedback: return from_ultrafeedback(object, row);
    case Annotations::kAlpacaEval: return from_alpaca_eval(object, row);
    case Annotations::kNone: break;
  }
  fail("[read_jsonl] ", row.where,
       ": expected \"instruction\" with \"completions\" (UltraFeedback) or \"output_1\" and "
       "\"output_2\" (AlpacaEval), the row has ",
       key_names(object));
}

}  // namespace temper::detail
