#include "temper/data/scored.h"

#include <nlohmann/json.hpp>
#include <unordered_map>

#include "json_rows.h"
#include "passages.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using Json = nlohmann::json;
using detail::RawPassage;
using detail::RowContext;
using detail::Tools;

/// The words under the first of the keys that is there.
Passage words_under(const Json& object, const RowContext& row, const std::string& path,
                    std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    auto raw = detail::read_passage(object, key, row.where, Tools::kRefuse);
    if (raw) return std::move(raw->words);
  }
  fail("[read_jsonl] ", row.where, ": ",
       path.empty() ? "" : "key \"" + path + "\": ", "expected an answer under the key \"",
       *keys.begin(), "\", there are ", detail::key_names(object));
}

double score_under(const Json& object, const RowContext& row, const std::string& path) {
  const auto score = detail::read_number(object, "score", row.where, row.cells);
  TEMPER_CHECK(score, "[read_jsonl] ", row.where, ": ",
               path.empty() ? "" : "key \"" + path + "\": ",
               "expected a number under the key \"score\", there are ", detail::key_names(object));
  return *score;
}

/// Answers in objects, or in an array with the scores beside them.
std::vector<ScoredAnswer> read_answers(const Json& object, const RowContext& row) {
  const auto list = object.find("completions");
  if (list == object.end()) {
    return {{words_under(object, row, "", {"completion", "answer", "response"}),
             score_under(object, row, "")}};
  }
  if (!list->is_array()) detail::refuse_value(row.where, "completions", "an array", *list);
  const auto scores = object.find("scores");
  if (scores != object.end()) {
    TEMPER_CHECK(scores->is_array() && scores->size() == list->size(), "[read_jsonl] ", row.where,
                 ": key \"scores\": expected an array of one number a completion");
  }
  std::vector<ScoredAnswer> answers;
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string path = concat("completions[", i, "]");
    Json sample = (*list)[i];
    if (scores != object.end()) sample = {{"completion", sample}, {"score", (*scores)[i]}};
    if (!sample.is_object()) {
      detail::refuse_value(row.where, path, "an object, or \"scores\" beside", sample);
    }
    answers.push_back({words_under(sample, row, path, {"completion", "text", "response"}),
                       score_under(sample, row, path)});
  }
  return answers;
}

/// Makes prompt and answers of one kind.
void unify(ScoredPrompt& prompt) {
  prompt.conversation = !prompt.prompt.turns.empty();
  for (const ScoredAnswer& a : prompt.answers) {
    prompt.conversation = prompt.conversation || !a.answer.turns.empty();
  }
  if (!prompt.conversation) return;
  const auto turned = [](Passage& passage, const char* role) {
    if (passage.turns.empty()) passage = {"", {{role, passage.text}}};
  };
  turned(prompt.prompt, "user");
  for (ScoredAnswer& a : prompt.answers) turned(a.answer, "assistant");
}

class ScoredReader {
 public:
  ScoredReader(const std::string& name, const PreferenceReadOptions& options)
      : name_(name), options_(options) {
    data_.source = name;
  }

  ScoredData read(detail::ByteSource source) {
    ReadOptions rows;
    rows.lossy_utf8 = options_.lossy_utf8;
    rows.skip_bad = options_.skip_bad;
    rows.max_rows = options_.max_rows;
    rows.max_line_bytes = options_.max_line_bytes;
    detail::RowsRead read = detail::read_each_row(std::move(source), name_, rows,
                                                  [&](detail::Row& row) { read_row(row); });
    data_.content_hash = read.content_hash;
    data_.skipped = read.skipped;
    data_.problems = std::move(read.problems);
    return std::move(data_);
  }

 private:
  void read_row(detail::Row& row) {
    const Json object = detail::parse_object(row, name_, options_.lossy_utf8);
    const RowContext context{.where = detail::position_in(name_, row, 0), .cells = row.cells};
    auto words = detail::read_passage(object, options_.prompt_key, context.where, Tools::kRefuse);
    TEMPER_CHECK(words && !words->words.empty(), "[read_jsonl] ", context.where,
                 ": expected a prompt under the key \"", options_.prompt_key, "\", the row has ",
                 detail::key_names(object));
    ScoredPrompt prompt;
    prompt.prompt = std::move(words->words);
    prompt.answers = read_answers(object, context);
    prompt.line = row.line;
    unify(prompt);
    prompt.id = detail::passage_id(prompt.prompt);
    data_.empty += std::erase_if(
        prompt.answers, [](const ScoredAnswer& a) { return detail::says_nothing(a.answer); });
    ++data_.rows;
    const auto [it, fresh] = places_.emplace(prompt.id, data_.prompts.size());
    if (fresh) {
      data_.prompts.push_back(std::move(prompt));
      return;
    }
    auto& answers = data_.prompts[it->second].answers;
    answers.insert(answers.end(), prompt.answers.begin(), prompt.answers.end());
  }

  const std::string& name_;
  const PreferenceReadOptions& options_;
  ScoredData data_;
  std::unordered_map<uint64_t, size_t> places_;
};

}  // namespace

ScoredData read_scored(const std::filesystem::path& path, const PreferenceReadOptions& options) {
  const std::string name = path.string();
  return ScoredReader(name, options).read(detail::open_bytes(path));
}

ScoredData parse_scored(std::string_view text, const std::string& name,
                        const PreferenceReadOptions& options) {
  return ScoredReader(name, options).read(detail::text_bytes(text));
}

}  // namespace temper
