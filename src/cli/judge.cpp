// judge: a language model as a judge, held against labels.
#include <CLI/App.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "temper/core/config.h"
#include "temper/core/error.h"
#include "temper/ops/reference.h"
#include "temper/trainer/judge_check.h"

namespace temper::cli {
namespace {

struct JudgeCommand {
  std::string file;
  std::string mode = "both";
  std::string append;
  std::string kernels = "cpu";
  JudgeConfig judge;
  CompletionReadOptions read;
  std::vector<std::string> set, read_set;
  bool json = false;
  bool keys = false;
};

/// The model with one mode's prompt.
std::unique_ptr<ModelJudge> judge_of(const std::shared_ptr<CausalLM>& lm, const ModelText& text,
                                     JudgeConfig config, const char* mode) {
  config.mode = mode;
  return std::make_unique<ModelJudge>(lm, text, std::move(config));
}

int run_judge(JudgeCommand& o) {
  const auto fields = config_fields(o.judge);
  for (const std::string& assignment : o.set) config_set(fields, assignment);
  if (o.keys) {
    print_line(config_help(fields));
    return kOk;
  }
  TEMPER_CHECK(!o.file.empty(), "name a file of pairs or of labelled answers");
  TEMPER_CHECK(!o.judge.model.empty() && o.judge.model != "policy", "give --model, the judge");
  const auto read_fields = config_fields(o.read);
  for (const std::string& assignment : o.read_set) config_set(read_fields, assignment);
  const auto rows = judged_rows(read_completions(o.file, o.read));
  const ops::KernelScope kernels(o.kernels);
  const ModelSource source = open_model(o.judge.model);
  const ModelText text(source);
  const auto lm = std::make_shared<CausalLM>(source, parse_weight_dtype(o.judge.weights), Trainable::kNo);
  std::unique_ptr<ModelJudge> marks, compares;
  const bool single = !rows.front().pair;
  if (o.mode != "pairwise") marks = judge_of(lm, text, o.judge, "pointwise");
  // A template is of one mode.
  const bool both = o.mode == "both" && !single && o.judge.template_file.empty();
  if (o.mode == "pairwise" || both) compares = judge_of(lm, text, o.judge, "pairwise");
  const JudgeReport report = check_judge(rows, marks.get(), compares.get(), o.append);
  if (o.json) {
    print_line(judge_report_json(report).dump());
    return kOk;
  }
  std::fputs(judge_report_text(report).c_str(), stdout);
  finish_output();
  return kOk;
}

}  // namespace

void add_judge(CLI::App& app, int& code) {
  CLI::App* cmd = app.add_subcommand(
      "judge",
      "Holds a language model as a judge against labels: a file of pairs {\"prompt\", \"chosen\", "
      "\"rejected\"}\n"
      "or of labelled answers {\"prompt\", \"completion\", \"label\"}. Prints how often it agrees, how "
      "often both orders of\n"
      "a pair do, whether it likes length, and how many cases it leaves without a judgement. Row "
      "contents are never shown.\n"
      "Example: temper judge pairs.jsonl --model M --set rubric=helpful --read max_rows=200");
  auto o = std::make_shared<JudgeCommand>();
  cmd->add_option("file", o->file, "JSON Lines, a JSON array or .csv, perhaps gzip");
  cmd->add_option("--model", o->judge.model, "The judge: GGUF file, folder or hub id");
  cmd->add_option("--mode", o->mode, "pointwise, pairwise, or both")
      ->check(CLI::IsMember({"pointwise", "pairwise", "both"}))
      ->capture_default_str();
  cmd->add_option("--append", o->append,
                  "Mark all (worse) answers a second time with this text behind them, and say what it "
                  "changes");
  cmd->add_option("--set", o->set, "key=value of the judge; --keys lists the keys; repeatable")
      ->take_all()
      ->allow_extra_args(false);
  cmd->add_option("--read", o->read_set, "key=value of reading, such as max_rows=100; repeatable")
      ->take_all()
      ->allow_extra_args(false);
  add_kernels_option(cmd, o->kernels);
  cmd->add_flag("--json", o->json, "The report as one line of JSON");
  cmd->add_flag("--keys", o->keys, "List the keys that --set knows");
  cmd->callback([o, &code] { code = run_judge(*o); });
}

}  // namespace temper::cli
