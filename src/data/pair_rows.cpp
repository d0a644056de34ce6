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

class PairParser {
 public:
  PairParser(const Json& object, const RowContext& row, const PreferenceReadOptions& options)
      : object_(object), row_(row), options_(options) {}

  PreferencePair parse() const {
    TEMPER_CHECK(
        row_.tools == Tools::kKeep || !object_.contains("tools") || object_["tools"].empty(),
        "[read_jsonl] ", row_.where, ": key \"tools\": conversations with tools are not read");
    const std::optional<Passage> prompt = read(options_.prompt_key);
    std::optional<Passage> chosen = read(options_.chosen_key);
    std::optional<Passage> rejected = read(options_.rejected_key);
    for (const auto& [key, side] :
         {std::pair(&options_.chosen_key, &chosen), std::pair(&options_.rejected_key, &rejected)}) {
      TEMPER_CHECK(side->has_value(), "[read_jsonl] ", row_.where,
                   ": expected an answer under the key ", "\"", *key, "\", the row has ",
                   key_names(object_));
    }
    PreferencePair pair;
    pair.chosen = std::move(*chosen);
    pair.rejected = std::move(*rejected);
    place_prompt(pair, prompt.value_or(Passage{}));
    pair.margin = read_number(object_, options_.margin_key, row_.where, row_.cells).value_or(0);
    return pair;
  }

 private:
  std::optional<Passage> read(const std::string& key) const {
    auto raw = read_passage(object_, key, row_.where, Tools::kRefuse);
    if (!raw) return std::nullopt;
    return std::move(raw->words);
  }

  void place_prompt(PreferencePair& pair, Passage prompt) const {
    pair.conversation =
        !pair.chosen.turns.empty() || !pair.rejected.turns.empty() || !prompt.turns.empty();
    if (!pair.conversation) return place_text(pair, std::move(prompt));
    for (const auto& [key, side] : {std::pair(&options_.chosen_key, &pair.chosen),
                                    std::pair(&options_.rejected_key, &pair.rejected)}) {
      if (!side->turns.empty()) continue;
      TEMPER_CHECK(!prompt.turns.empty(), "[read_jsonl] ", row_.where, ": key \"", *key,
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
    const bool transcripts = options_.transcripts != "off" && is_transcript(a) && is_transcript(b);
    if (transcripts && options_.transcripts != "text") {
      pair.conversation = true;
      pair.chosen = {"", transcript_turns(a)};
      pair.rejected = {"", transcript_turns(b)};
      return place_turns(pair, {});
    }
    const size_t shared = transcripts ? shared_turns(a, b) : shared_beginning(a, b);
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
    pair.prompt.turns.insert(pair.prompt.turns.end(), a.begin(), a.begin() + end);
    a.erase(a.begin(), a.begin() + end);
    b.erase(b.begin(), b.begin() + end);
  }

  const Json& object_;
  const RowContext& row_;
  const PreferenceReadOptions& options_;
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
