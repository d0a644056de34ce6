#include "temper/data/completions.h"

#include <exception>
#include <nlohmann/json.hpp>

#include "completion_rows.h"
#include "json_rows.h"
#include "passages.h"
#include "temper/core/error.h"
#include "temper/core/log.h"

namespace temper {
namespace {

using Json = nlohmann::json;
using detail::RowContext;

bool is_paired(DataForm form) {
  return form == DataForm::kPreference || form == DataForm::kUltraFeedback ||
         form == DataForm::kAlpacaEval;
}

/// What stands for the prompt where none is named: a conversation's turns before the first answer,
/// or the text itself.
uint64_t id_of(const CompletionRecord& record) {
  if (!record.prompt.empty()) return detail::passage_id(record.prompt);
  Passage head;
  for (const ChatMessage& turn : record.completion.turns) {
    if (turn.role == "assistant") break;
    head.turns.push_back(turn);
  }
  return detail::passage_id(head.empty() ? record.completion : head);
}

/// Reads the rows of one file and hands on what is whole.
class CompletionReader {
 public:
  using Take = std::function<void(CompletionRecord&&)>;

  CompletionReader(const std::string& name, const CompletionReadOptions& options, Take take)
      : name_(name), options_(options), take_(std::move(take)) {
    pair_options_.chosen_key = options.chosen_key;
    pair_options_.rejected_key = options.rejected_key;
    pair_options_.transcripts = options.transcripts;
    if (!options.prompt_key.empty()) pair_options_.prompt_key = options.prompt_key;
    TEMPER_CHECK(options.pairs == "both" || options.pairs == "chosen",
                 "[read_completions] pairs must be both or chosen, got \"", options.pairs, "\"");
    if (options.form != "auto" && options.form != "any") form_ = parse_form(options.form);
  }

  CompletionData read(detail::ByteSource source) {
    data_.source = name_;
    data_.license = options_.license;
    ReadOptions rows;
    rows.lossy_utf8 = options_.lossy_utf8;
    rows.skip_bad = options_.skip_bad;
    rows.max_rows = options_.max_rows;
    rows.max_line_bytes = options_.max_line_bytes;
    detail::RowsRead read = detail::read_each_row(std::move(source), name_, rows,
                                                  [&](detail::Row& row) { read_row(row); });
    if (error_) std::rethrow_exception(error_);
    data_.content_hash = read.content_hash;
    data_.skipped = read.skipped;
    data_.problems = std::move(read.problems);
    data_.problems.insert(data_.problems.end(), left_out_.begin(), left_out_.end());
    data_.form = *form_;
    TEMPER_CHECK(taken_ > 0, "[read_completions] ", name_, ": nothing to learn from: ", data_.empty,
                 " rows have an empty answer, ", data_.equal, " have the same answer twice, ",
                 data_.ties, " prefer neither");
    if (data_.empty + data_.equal + data_.ties > 0) {
      log_warn("[read_completions] ", name_, ": left out ", data_.empty,
               " rows with an empty answer, ", data_.equal, " with the same answer twice and ",
               data_.ties, " that prefer neither",
               detail::listed(left_out_, data_.empty + data_.equal + data_.ties));
    }
    return std::move(data_);
  }

 private:
  void read_row(detail::Row& row) {
    if (error_) return;
    const Json object = detail::parse_object(row, name_, options_.lossy_utf8);
    const RowContext context{.where = detail::position_in(name_, row, 0), .cells = row.cells};
    const DataForm form = form_ ? *form_ : auto_form(object, context.where);
    CompletionRecord record;
    std::optional<CompletionRecord> other;
    if (is_paired(form)) {
      if (!read_pair(object, context, form, record, other)) return;
    } else {
      record = detail::record_of_row(object, context, options_, form);
      if (form != DataForm::kPrompt &&
          detail::says_nothing(record.completion, record.turns_json)) {
        form_ = form;
        return leave_out(data_.empty, context, "an answer has no words");
      }
    }
    detail::read_row_columns(record, object, context, options_);
    form_ = form;
    if (other) {
      other->weight = record.weight;
      other->tools_json = record.tools_json;
    }
    if (form == DataForm::kSteps) return give_steps(record, context, row.line);
    const uint64_t id = id_of(record);
    give(std::move(record), row.line, id);
    if (other) give(std::move(*other), row.line, id);
  }

  /// Each step as an answer of its own, behind the prompt and the steps before it.
  void give_steps(const CompletionRecord& whole, const RowContext& context, uint64_t line) {
    TEMPER_CHECK(!whole.conversation, "[read_jsonl] ", context.where,
                 ": steps of their own need a prompt that is a text, this one is a conversation");
    const uint64_t id = id_of(whole);  // Steps of one prompt stay together.
    std::string before = whole.prompt.text;
    for (const LabelledStep& step : whole.steps) {
      CompletionRecord record;
      record.prompt.text = before;
      record.completion.text = step.text;
      record.label = step.correct;
      record.weight = whole.weight;
      before += step.text + "\n";
      if (detail::says_nothing(record.completion)) {
        leave_out(data_.empty, context, "a step has no words");
      } else {
        give(std::move(record), line, id);
      }
    }
  }

  DataForm auto_form(const Json& object, const std::string& where) const {
    const DataForm form = detail::detect_form(object, where, options_);
    TEMPER_CHECK(form != DataForm::kPrompt || options_.form == "any", "[read_jsonl] ", where,
                 ": the row has a prompt and no answer (completion_key names its key); it has ",
                 detail::key_names(object));
    return form;
  }

  bool read_pair(const Json& object, const RowContext& context, DataForm form,
                 CompletionRecord& chosen, std::optional<CompletionRecord>& rejected) {
    std::optional<PreferencePair> pair = form == DataForm::kPreference
                                             ? detail::pair_of_row(object, context, pair_options_)
                                             : detail::pair_of_marks(object, context);
    form_ = form;
    if (!pair) {
      leave_out(data_.ties, context, "no answer is the better one");
      return false;
    }
    if (detail::same_answers(*pair)) {
      leave_out(data_.equal, context, "both answers are the same");
      return false;
    }
    if (detail::says_nothing(pair->chosen, pair->chosen_json) ||
        detail::says_nothing(pair->rejected, pair->rejected_json)) {
      leave_out(data_.empty, context, "an answer has no words");
      return false;
    }
    chosen.conversation = pair->conversation;
    chosen.prompt = std::move(pair->prompt);
    chosen.completion = std::move(pair->chosen);
    chosen.turns_json = std::move(pair->chosen_json);
    if (options_.pairs == "both") {
      chosen.label = true;
      rejected = chosen;
      rejected->label = false;
      rejected->completion = std::move(pair->rejected);
      rejected->turns_json = std::move(pair->rejected_json);
      mark_assistant(*rejected);
    }
    mark_assistant(chosen);
    return true;
  }

  /// A row without a winner is no mistake of the file's; the others are left out under `skip_bad`.
  void leave_out(uint64_t& count, const RowContext& row, std::string_view why) {
    constexpr size_t kListed = 20;
    const std::string line = concat("[read_completions] ", row.where, ": ", why);
    TEMPER_CHECK(options_.skip_bad || &count == &data_.ties, line,
                 "; skip_bad=true leaves such rows out");
    ++count;
    if (left_out_.size() < kListed) left_out_.push_back(line);
  }

  static void mark_assistant(CompletionRecord& record) {
    for (const ChatMessage& turn : record.completion.turns) {
      record.assistant.push_back(turn.role == "assistant");
    }
  }

  /// Errors of the taker are no bad rows: they are kept until the rows are through.
  void give(CompletionRecord&& record, uint64_t line, uint64_t id) {
    record.line = line;
    record.id = id;
    ++taken_;
    if (error_) return;
    try {
      take_(std::move(record));
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  const std::string& name_;
  const CompletionReadOptions& options_;
  Take take_;
  PreferenceReadOptions pair_options_;
  std::optional<DataForm> form_;
  CompletionData data_;
  std::vector<std::string> left_out_;
  uint64_t taken_ = 0;
  std::exception_ptr error_;
};

CompletionData read_all(detail::ByteSource source, const std::string& name,
                        const CompletionReadOptions& options) {
  std::vector<CompletionRecord> records;
  CompletionReader reader(name, options,
                          [&](CompletionRecord&& record) { records.push_back(std::move(record)); });
  CompletionData data = reader.read(std::move(source));
  data.records = std::move(records);
  return data;
}

}  // namespace

std::string_view form_name(DataForm form) { return form_names()[static_cast<size_t>(form)]; }

const std::vector<std::string>& form_names() {
  static const std::vector<std::string> names = {
      "text",       "messages", "prompt",        "prompt_completion", "unpaired",
      "preference", "stepwise", "steps",         "ultrafeedback",     "alpaca_eval"};
  return names;
}

DataForm parse_form(std::string_view name) {
  const auto& names = form_names();
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return static_cast<DataForm>(i);
  }
  const std::string near = nearest_name(name, names);
  fail("[parse_form] no form is called \"", name, "\"",
       near.empty() ? "" : "; did you mean \"" + near + "\"?");
}

CompletionData read_completions(const std::filesystem::path& path,
                                const CompletionReadOptions& options) {
  return read_all(detail::open_bytes(path), path.string(), options);
}

CompletionData parse_completions(std::string_view text, const std::string& name,
                                 const CompletionReadOptions& options) {
  return read_all(detail::text_bytes(text), name, options);
}

CompletionData stream_completions(const std::filesystem::path& path,
                                  const CompletionReadOptions& options,
                                  const std::function<void(CompletionRecord&&)>& take) {
  const std::string name = path.string();
  return CompletionReader(name, options, take).read(detail::open_bytes(path));
}

std::pair<CompletionData, CompletionData> split_by_hash(const CompletionData& data,
                                                        double held_out_fraction, uint64_t seed) {
  TEMPER_CHECK(held_out_fraction >= 0 && held_out_fraction <= 1,
               "[split_by_hash] held_out_fraction must be in [0, 1], got ", held_out_fraction);
  std::pair<CompletionData, CompletionData> parts;
  for (CompletionData* part : {&parts.first, &parts.second}) {
    part->source = data.source;
    part->license = data.license;
    part->content_hash = data.content_hash;
    part->form = data.form;
  }
  parts.first.skipped = data.skipped;
  parts.first.empty = data.empty;
  parts.first.equal = data.equal;
  parts.first.ties = data.ties;
  parts.first.problems = data.problems;
  for (const CompletionRecord& record : data.records) {
    const bool held_out = split_position(record.id, seed) < held_out_fraction;
    (held_out ? parts.second : parts.first).records.push_back(record);
  }
  return parts;
}

}  // namespace temper
