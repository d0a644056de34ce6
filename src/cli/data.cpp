// data: what stands in a file of training data, and pairs made of scored samples.
#include <CLI/App.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands.h"
#include "temper/core/config.h"
#include "temper/core/error.h"
#include "temper/data/build.h"
#include "temper/data/check.h"
#include "temper/nn/models.h"

namespace temper::cli {
namespace {

using Json = nlohmann::ordered_json;

struct CheckOptions {
  std::string file;
  std::vector<std::string> against;
  std::string model;
  int64_t max_length = 0;
  double near = 0.8;
  std::vector<std::string> set;
  bool json = false;
};

Json messages_of(const Passage& passage) {
  Json turns = Json::array();
  for (const ChatMessage& t : passage.turns) {
    turns.push_back({{"role", t.role}, {"content", t.content}});
  }
  return turns;
}

/// Tokens of a record as training would read them, for sizes: a conversation through the model's
/// template, a text as it is encoded, with an end token.
RecordLength count_tokens(const ModelText& text, const CompletionRecord& r) {
  const auto size = [](const std::vector<int32_t>& ids) { return std::ssize(ids); };
  if (!r.conversation) {
    const Tokenizer& t = text.tokenizer();
    const int64_t end = text.eos_id() ? 1 : 0;
    return {size(t.encode(r.prompt.text)), size(t.encode(r.prompt.text + r.completion.text)) + end};
  }
  const Json prompt = messages_of(r.prompt);
  Json whole = prompt;
  for (const Json& turn : messages_of(r.completion)) whole.push_back(turn);
  const std::optional<Json> tools =
      r.tools_json.empty() ? std::nullopt : std::optional(Json::parse(r.tools_json));
  const Json* shown = tools ? &*tools : nullptr;
  if (!r.turns_json.empty()) whole = Json::parse(r.turns_json);
  RecordLength length;
  try {
    if (!prompt.empty()) length.prompt = size(text.encode_rendered(text.render(prompt, shown)));
    length.whole = size(text.encode_rendered(text.render_finished(whole, shown)));
  } catch (const Error& e) {
    fail("[data check] line ", r.line, ": ", e.what());
  }
  return length;
}

int run_check(const CheckOptions& o) {
  TEMPER_CHECK(o.max_length >= 0, "--max-length must not be negative, got ", o.max_length);
  DataCheckOptions options;
  const auto fields = config_fields(options.read);
  for (const std::string& assignment : o.set) config_set(fields, assignment);
  options.max_length = o.max_length;
  options.near.similarity = o.near;
  std::optional<ModelText> text;
  if (!o.model.empty()) {
    text.emplace(open_model(o.model));
    options.unit = "tokens";
    if (!text->has_template() && options.read.transcripts == "auto") {
      options.read.transcripts = "text";
    }
    options.length = [&](const CompletionRecord& r) { return count_tokens(*text, r); };
  }
  const DataCheckReport report = check_data(o.file, {o.against.begin(), o.against.end()}, options);
  if (o.json) {
    print_line(check_json(report).dump(-1, ' ', false, Json::error_handler_t::replace));
  } else {
    std::fputs(check_table(report).c_str(), stdout);
    finish_output();
  }
  return kOk;
}

struct BuildOptions {
  std::vector<std::string> files;
  std::vector<std::string> against;
  std::string output;
  std::vector<std::string> set;
  bool scrub = false;
  bool keys = false;
};

int run_build(const BuildOptions& o) {
  BuildConfig config;
  const auto fields = config_fields(config);
  for (const std::string& assignment : o.set) config_set(fields, assignment);
  if (o.keys) {
    std::fputs(config_help(fields).c_str(), stdout);
    finish_output();
    return kOk;
  }
  TEMPER_CHECK(!o.files.empty(), "name a file of scored samples");
  TEMPER_CHECK(!o.output.empty(), "give --output, a folder for the pairs and their card");
  if (o.scrub) config.scrub = true;
  const BuildResult result =
      build_pairs({o.files.begin(), o.files.end()}, {o.against.begin(), o.against.end()}, config);
  write_build(result, o.output);
  std::fprintf(stderr, "wrote %s: %zu pairs to train on, %zu held out\n", o.output.c_str(),
               result.train.size(), result.held_out.size());
  print_line(Json::parse(result.files.at("card.json")).dump());
  return kOk;
}

void add_check_command(CLI::App* group, int& code) {
  CLI::App* cmd = group->add_subcommand(
      "check",
      "What training on a file would meet: its form, counts, lengths, duplicates, labels, leaks\n"
      "to other files, what a length limit cuts, and bad rows by line.\n"
      "JSON Lines, a JSON array or .csv, each perhaps gzip. Row contents are never shown.\n"
      "Example: temper data check train.jsonl --against test.jsonl --model M --max-length 1024");
  auto o = std::make_shared<CheckOptions>();
  cmd->add_option("file", o->file, "File to look at")->required();
  cmd->add_option("--against", o->against, "A file whose prompts should not be in it; repeatable")
      ->take_all()
      ->allow_extra_args(false);
  cmd->add_option("--model", o->model, "Count tokens of this model instead of characters");
  cmd->add_option("--max-length", o->max_length, "Count what is longer; 0: nothing");
  cmd->add_option("--near", o->near, "Share of shingles from which texts are near; 0: do not look")
      ->capture_default_str();
  cmd->add_option("--set", o->set, "key=value of reading, such as form=unpaired or prompt_key=q")
      ->take_all()
      ->allow_extra_args(false);
  cmd->add_flag("--json", o->json, "The report as one line of JSON");
  cmd->callback([o, &code] { code = run_check(*o); });
}

void add_build_command(CLI::App* group, int& code) {
  CLI::App* cmd = group->add_subcommand(
      "build",
      "Makes preference pairs of scored samples: {\"prompt\", \"completions\", \"scores\"} or\n"
      "{\"prompt\", \"completion\", \"score\"} a row. Writes train.jsonl, held_out.jsonl, "
      "card.json\n"
      "and card.md; prints the card. The same inputs and settings give the same bytes.\n"
      "Example: temper data build samples.jsonl --output pairs --against test.jsonl\n"
      "           --set held_out_fraction=0.1 --set min_margin=0.5 --set balance_lengths=true");
  auto o = std::make_shared<BuildOptions>();
  cmd->add_option("files", o->files, "Files of scored samples");
  cmd->add_option("--output", o->output, "Folder to write; must not hold these files yet");
  cmd->add_option("--against", o->against, "Evaluation file to keep out of the pairs; repeatable")
      ->take_all()
      ->allow_extra_args(false);
  cmd->add_option("--set", o->set, "key=value; --keys lists the keys")
      ->take_all()
      ->allow_extra_args(false);
  cmd->add_flag("--scrub", o->scrub, "Replace personal data by tags (scrub=true)");
  cmd->add_flag("--keys", o->keys, "List the keys that --set knows");
  cmd->callback([o, &code] { code = run_build(*o); });
}

}  // namespace

void add_data(CLI::App& app, int& code) {
  CLI::App* group = app.add_subcommand("data", "Look at training data, and make pairs");
  group->require_subcommand(1);
  add_check_command(group, code);
  add_build_command(group, code);
}

}  // namespace temper::cli
