#include "temper/data/tasks.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "temper/core/error.h"
#include "temper/core/rng.h"

namespace temper {
namespace {

constexpr std::string_view kSlot = "{question}";
constexpr const char* kArithmeticTemplate = "What is {question}? Reply with the number only.";
constexpr const char* kGsm8kTemplate =
    "{question}\nThink step by step, then give the answer on a last line of the form "
    "\"#### number\".";
constexpr size_t kDefaultHeldOut = 200;
constexpr size_t kMostTrainingPrompts = 10000;

/// Where the question goes in a prompt, checked once.
class Phrasing {
 public:
  Phrasing(const TaskConfig& config, const std::string& fallback, bool chat)
      : text_(config.prompt_template.empty() ? fallback : config.prompt_template),
        system_(config.system_prompt),
        chat_(config.form == "auto" ? chat : config.form == "chat") {
    TEMPER_CHECK(config.form == "auto" || config.form == "chat" || config.form == "text",
                 "[task] form must be auto, chat or text, got \"", config.form, "\"");
    slot_ = text_.find(kSlot);
    TEMPER_CHECK(slot_ != std::string::npos && text_.find(kSlot, slot_ + 1) == std::string::npos,
                 "[task] prompt_template must hold {question} exactly once, got \"", text_, "\"");
    TEMPER_CHECK(chat_ || system_.empty(),
                 "[task] system_prompt needs prompts in chat form: set form=chat");
  }

  /// Puts the question into the template and the result into the form that was asked for.
  void apply(Example& example, const std::string& question) const {
    std::string prompt = text_;
    prompt.replace(slot_, kSlot.size(), question);
    if (chat_) {
      if (!system_.empty()) example.messages.push_back({"system", system_});
      example.messages.push_back({"user", std::move(prompt)});
    } else {
      example.prompt = std::move(prompt);
    }
    example.id = prompt_id(example);
  }

 private:
  std::string text_;
  std::string system_;
  bool chat_;
  size_t slot_ = 0;
};

uint64_t seed_of(const TaskConfig& config) { return static_cast<uint64_t>(config.seed); }

/// One list in which the kinds take turns, each in a seeded order, so that a prefix is balanced.
std::vector<Question> interleave(std::vector<std::vector<Question>> kinds, uint64_t seed) {
  size_t longest = 0;
  for (size_t k = 0; k < kinds.size(); ++k) {
    RngStream rng(seed, RngPurpose::kTask, k);
    for (size_t i = kinds[k].size(); i > 1; --i) {  // Fisher-Yates
      std::swap(kinds[k][i - 1], kinds[k][rng.next_below(i)]);
    }
    longest = std::max(longest, kinds[k].size());
  }
  std::vector<Question> out;
  for (size_t i = 0; i < longest; ++i) {
    for (auto& kind : kinds) {
      if (i < kind.size()) out.push_back(std::move(kind[i]));
    }
  }
  return out;
}

std::pair<size_t, size_t> arithmetic_sizes(const TaskConfig& config, size_t space) {
  TEMPER_CHECK(config.train_size >= 0 && config.held_out_size >= 0,
               "[arithmetic] train_size and held_out_size must not be negative, got ",
               config.train_size, " and ", config.held_out_size);
  const size_t automatic = space < 500 ? space / 5 : kDefaultHeldOut;
  const size_t held_out =
      config.held_out_size == 0 ? automatic : static_cast<size_t>(config.held_out_size);
  const size_t wanted = config.train_size == 0 ? 1 : static_cast<size_t>(config.train_size);
  TEMPER_CHECK(held_out < space && wanted <= space - held_out, "[arithmetic] level ", config.level,
               " has ", space, " different questions, too few for ", wanted, " training and ",
               held_out, " held-out prompts: raise the level or lower train_size or held_out_size");
  const size_t train =
      config.train_size == 0 ? std::min(space - held_out, kMostTrainingPrompts) : wanted;
  return {train, held_out};
}

/// Held out are the questions with the smallest hash positions, so the choice depends on the seed
/// and on the prompts alone, and a larger held-out set contains the smaller one.
Task make_arithmetic(const TaskConfig& config) {
  const Phrasing phrasing(config, kArithmeticTemplate, true);
  const auto questions = interleave(arithmetic_questions(config.level), seed_of(config));
  const auto [train_size, held_out_size] = arithmetic_sizes(config, questions.size());

  std::vector<double> positions;
  for (const auto& q : questions) {
    StableHash hash;
    hash.update(q.text);
    positions.push_back(split_position(hash.value(), seed_of(config)));
  }
  std::vector<double> sorted = positions;
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(held_out_size),
                   sorted.end());
  const double bound = sorted[held_out_size];

  Task task;
  StableHash content;
  for (size_t i = 0; i < questions.size(); ++i) {
    Dataset& part = positions[i] < bound ? task.held_out : task.train;
    if (&part == &task.train && part.examples.size() == train_size) continue;
    Example example;
    example.answer = questions[i].answer;
    phrasing.apply(example, questions[i].text);
    content.update(concat(example.id, '=', example.answer, '\n'));
    part.examples.push_back(std::move(example));
  }
  for (Dataset* part : {&task.train, &task.held_out}) {
    part->source = concat("generated: arithmetic level ", config.level, ", seed ", config.seed);
    part->license = "generated, no rights reserved";
    part->content_hash = content.value();
  }
  task.default_rewards = {"numeric_answer"};
  return task;
}

Dataset read_for(const TaskConfig& config) {
  TEMPER_CHECK(!config.path.empty(), "[task] the task \"", config.name,
               "\" reads a file: set data.path to a JSON Lines file");
  TEMPER_CHECK(config.held_out_fraction >= 0 && config.held_out_fraction < 1,
               "[task] held_out_fraction must be in [0, 1), got ", config.held_out_fraction);
  TEMPER_CHECK(config.held_out_size == 0, "[task] the task \"", config.name,
               "\" holds prompts out by held_out_fraction; held_out_size is for generated tasks");
  TEMPER_CHECK(config.train_size >= 0, "[task] train_size must not be negative, got ",
               config.train_size);
  return read_jsonl(config.path, config.read);
}

/// Splits by the prompts as the file has them, so that another template holds the same rows out,
/// then phrases both parts.
Task split_task(const TaskConfig& config, const Dataset& data, const Phrasing& phrasing) {
  Task task;
  std::tie(task.train, task.held_out) =
      split_by_hash(data, config.held_out_fraction, seed_of(config));
  auto& rows = task.train.examples;
  const size_t wanted = static_cast<size_t>(config.train_size);
  TEMPER_CHECK(!rows.empty(), "[task] ", data.source, ": all ", data.examples.size(),
               " rows were held out: lower held_out_fraction");
  TEMPER_CHECK(wanted <= rows.size(), "[task] ", data.source, " leaves ", rows.size(),
               " training rows, train_size asks for ", wanted);
  if (wanted > 0) rows.resize(wanted);
  for (Dataset* part : {&task.train, &task.held_out}) {
    for (Example& example : part->examples) {
      if (example.messages.empty()) phrasing.apply(example, std::exchange(example.prompt, ""));
    }
  }
  return task;
}

Task make_gsm8k(const TaskConfig& config) {
  const Phrasing phrasing(config, kGsm8kTemplate, true);
  const Dataset data = read_for(config);
  for (size_t i = 0; i < data.examples.size(); ++i) {
    const Example& example = data.examples[i];
    TEMPER_CHECK(!example.prompt.empty() && example.answer.find("####") != std::string::npos,
                 "[task gsm8k] ", data.source, ": row ", i + 1,
                 " is not in GSM8K form: expected a question and an answer that ends in "
                 "\"#### number\"");
  }
  Task task = split_task(config, data, phrasing);
  task.default_rewards = {"numeric_answer"};
  return task;
}

Task make_jsonl(const TaskConfig& config) {
  const Phrasing phrasing(config, std::string(kSlot), false);
  const Dataset data = read_for(config);
  bool answers = false;
  bool marked = false;
  const bool plain_only = config.form == "text" || !config.prompt_template.empty();
  for (const Example& example : data.examples) {
    answers = answers || !example.answer.empty();
    marked = marked || example.answer.find("####") != std::string::npos;
    TEMPER_CHECK(example.messages.empty() || !plain_only, "[task jsonl] ", data.source,
                 " holds conversations: prompt_template and form=text are for plain prompts");
  }
  Task task = split_task(config, data, phrasing);
  if (answers) task.default_rewards = {marked ? "numeric_answer" : "exact_match"};
  return task;
}

}  // namespace

const std::vector<TaskInfo>& tasks() {
  static const std::vector<TaskInfo> table = {
      {"arithmetic", "Generated sums and products, levels 1 to 5; needs no file.", make_arithmetic},
      {"gsm8k", "Grade-school word problems from data.path: question, answer with #### number.",
       make_gsm8k},
      {"jsonl", "Your own prompts from data.path, with answers if the rewards need them.",
       make_jsonl},
  };
  return table;
}

Task make_task(const TaskConfig& config) {
  std::vector<std::string> names;
  for (const auto& info : tasks()) {
    if (info.name == config.name) return info.make(config);
    names.push_back(info.name);
  }
  const std::string near = nearest_name(config.name, names);
  std::string all;
  for (const auto& name : names) all += (all.empty() ? "" : ", ") + name;
  fail("[task] unknown task \"", config.name, "\"",
       near.empty() ? "" : "; did you mean \"" + near + "\"?", " Tasks: ", all);
}

}  // namespace temper
